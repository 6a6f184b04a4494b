"""Colours of classes: one set, for this package's pictures and for the tables that viewers read."""

import colorsys
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from cortexgen.atlas.labels import class_numbers, read_label_table
from cortexgen.io.atomic import write_text
from cortexgen.io.bids import write_tsv
from cortexgen.io.tables import read_table

TABLE = "dseg.tsv"  # BIDS' own; the others are made of the same rows
LARGEST_SNAP = 2**16 - 1  # of ITK-SNAP's labels
RGB = tuple[int, int, int]
_ONE_THREAD = Lock()  # at a time: brains are written side by side, and a file's temporary name is its process's

# FreeSurfer's, for the 18 classes of the default template, so that readers find their own colours.
_HEX = (
    "000000 f5f5f5 cd3e4e 781286 c43afa dcf8a4 e69422 00760e 7abadc "
    "ec0db0 0c30ff ccb68e 2acca4 779fb0 dcd814 67ffff ffa500 a52a2a"
)
_CLASSES = [bytes.fromhex(colour) for colour in _HEX.split()]


def class_rgb(k: int) -> RGB:
    """Red, green and blue, 0 to 255, of class k; those beyond the default template's 18 go round the colour wheel."""
    if k < len(_CLASSES):
        red, green, blue = _CLASSES[k]
    else:
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.65, 0.95))
    return red, green, blue


def write_label_tables(root: Path, classes: Mapping[int, str]) -> None:
    """Write `dseg.tsv` (BIDS) and, beside it, the same colours as viewers read them; an existing dseg.tsv is kept.

    Arguments:
        classes: name of each class by its number in files; the k-th has the colour of class k.
    """
    path = Path(root, TABLE)
    with _ONE_THREAD:
        if not classes or path.is_file():
            return
        colours = {number: class_rgb(k) for k, number in enumerate(classes)}
        _write_viewers(root, classes, colours)
        rows = [{"index": n, "name": name, "color": "#" + bytes(colours[n]).hex()} for n, name in classes.items()]
        write_tsv(path, rows)


def write_viewer_tables(root: Path) -> None:
    """Write the viewers' tables for the classes of a folder's `dseg.tsv`, in its colours where it has some.

    Raises:
        UserError: if it can't be read.
    """
    path = Path(root, TABLE)
    names = read_label_table(path)
    colours = {n: class_rgb(k) for k, n in enumerate(class_numbers(names))}
    for row in read_table(path):
        if re.fullmatch("#[0-9A-Fa-f]{6}", row.get("color", "")) and (number := int(float(row["index"]))) in names:
            red, green, blue = bytes.fromhex(row["color"][1:])
            colours[number] = red, green, blue
    _write_viewers(root, names, colours)


def _write_viewers(root: Path, names: Mapping[int, str], colours: Mapping[int, RGB]) -> None:
    """ITK-SNAP's, 3D Slicer's, FreeSurfer's and FSLeyes' tables; class 0 is the background, and transparent."""
    snap = ["# ITK-SnAP Label Description File", "# IDX  R  G  B  A  VIS  MSH  LABEL"]
    slicer, free, eyes = ["# Color table file dseg.ctbl", f"# {len(names)} values"], ["#No. Label R G B A"], list[str]()
    for number, name in sorted(names.items()):
        seen, (red, green, blue) = int(number > 0), colours[number]
        word = re.sub(r"\s+", "_", name.strip())
        if number <= LARGEST_SNAP:
            quoted = name.replace('"', "'")
            snap.append(f'{number:5} {red:3} {green:3} {blue:3} {seen} {seen} {seen} "{quoted}"')
        slicer.append(f"{number} {word} {red} {green} {blue} {255 * seen}")
        free.append(f"{number} {word} {red} {green} {blue} 0")
        if seen:
            eyes.append(f"{number} {red / 255:.5f} {green / 255:.5f} {blue / 255:.5f} {name}")
    for name, lines in (("dseg.label", snap), ("dseg.ctbl", slicer), ("dseg_LUT.txt", free), ("dseg.lut", eyes)):
        write_text(Path(root, name), "\n".join(lines) + "\n")
