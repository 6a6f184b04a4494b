"""Text that Markdown and LaTeX show as it is."""

import re
import unicodedata
from collections.abc import Sequence

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_LATEX = {
    **{c: "\\" + c for c in "&%$#_{}"},
    **{c: "{" + c + "}" for c in "[]*"},  # options of the \\ that ends the row before
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "→": r"$\to$",
    **{unicodedata.lookup(f"GREEK SMALL LETTER {n.replace('lambda', 'lamda')}"): f"$\\{n}$" for n in _GREEK.split()},
}


def one_line(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in " ".join(text.split()))


def markdown(text: str) -> str:
    """Text as a cell of GitHub's Markdown."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line(text))


def paragraph(text: str) -> str:
    """Text as a paragraph of Markdown, and no heading, list or rule."""
    return re.sub(r"^(\d*)([#+\-=.)])", r"\1\\\2", markdown(text))


def latex(text: str) -> str:
    """Text in LaTeX, also as the first cell of a row; letters beyond pdfLaTeX's need another engine."""
    return re.sub("-(?=-)", "-{}", "".join(_LATEX.get(c, c) for c in one_line(text)))


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> list[list[str]]:
    """Cells padded to the width of their column, 3 or more; `right` says which columns are flush right."""
    widths = [max(3, *map(width, cells)) for cells in zip(*lines, strict=True)]
    padded = []
    for line in lines:
        gaps = [" " * (w - width(cell)) for cell, w in zip(line, widths, strict=True)]
        padded.append([gap + cell if r else cell + gap for cell, gap, r in zip(line, gaps, right, strict=True)])
    return padded


def width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
