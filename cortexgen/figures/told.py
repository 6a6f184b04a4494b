"""Charts as SVG whose marks say their values where a pointer rests on them."""

import io
import json
import re
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

from cortexgen.figures.axes import BAND, GREY, INK, RULE, STRIPE
from cortexgen.figures.marks import MARK

COLOURS = {INK: "ink", GREY: "grey", RULE: "line", BAND: "band", STRIPE: "stripe"}  # by name in the page's style


def to_svg(figure: Figure, prefix: str) -> str:
    """The chart as an element `svg` for a page, the same text for the same chart.

    It has no background, and the page's colours of lines and letters.

    Arguments:
        prefix: of the names that its parts refer to each other by, of which a page has one each.
    """
    content = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": prefix, "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", facecolor="none", metadata=nothing, dpi=100)
    root = ElementTree.fromstring(content.getvalue())
    for parent in root.iter():
        for child in [*parent]:
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for group in [*root.iter("g")]:
        _tell(group)
    root.attrib = {"viewBox": root.attrib["viewBox"]}
    text = ElementTree.tostring(root, "unicode")
    text = text.replace("fill: #ffffff", "fill: none")
    for colour, name in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    used = {*re.findall(r'(?:href="|url\()#([^")]+)', text)}
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(href="|url\()#', rf"\1#{prefix}", text)


def _tell(group: ElementTree.Element) -> None:
    """Turn what `mark` left on a group into titles."""
    if not group.get("id", "").startswith(MARK):
        return
    texts = json.loads(group.attrib["id"].removeprefix(MARK))
    marks = [*group.iter("use")]
    for element, text in zip(marks if len(texts) > 1 else [group], texts, strict=False):
        if len(texts) in (1, len(marks)):
            ElementTree.SubElement(element, "title").text = text
    group.set("class", "told")
    del group.attrib["id"]
