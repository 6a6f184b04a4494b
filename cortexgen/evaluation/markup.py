"""Text that Markdown and LaTeX show as it is."""

import re
import unicodedata

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
