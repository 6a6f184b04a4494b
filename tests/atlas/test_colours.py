"""Colour tables, read by what each program documents of its format, and by nilearn."""

import csv
import re
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from nilearn.maskers import NiftiLabelsMasker

from cortexgen.atlas.colours import write_label_tables, write_viewer_tables
from cortexgen.atlas.labels import read_label_table
from cortexgen.atlas.template import load_template
from cortexgen.figures.colours import class_colour

NUMBERS = {0: "Unknown", 2: 'Left "deep" part', 17: "Hippocampus", 2035: "ctx-lh-insula", 70000: "beyond 16 bits"}


def lines(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def snap(path):
    """As ITK-SNAP: index, three bytes, opacity in [0, 1], two switches, a name in quotation marks."""
    row = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([01](?:\.\d+)?)\s+([01])\s+([01])\s+"([^"]*)"\s*')
    found = [row.fullmatch(line).groups() for line in lines(path)]
    assert all(int(f[0]) < 2**16 and f[4] == f[5] == f[6] == ("0" if f[0] == "0" else "1") for f in found)
    return {int(f[0]): (f[7], *map(int, f[1:4])) for f in found}


def five_cells(path, opacity):
    """As 3D Slicer and FreeSurfer: index, a name without spaces, three bytes, and one of opacity or transparency."""
    rows = [line.split() for line in lines(path)]
    assert all(len(row) == 6 and int(row[5]) == opacity(int(row[0])) for row in rows)
    return {int(row[0]): (row[1], *map(int, row[2:5])) for row in rows}


def fsleyes(path):
    """As FSLeyes: label, three fractions, and the rest of the line as name."""
    rows = [line.split(None, 4) for line in lines(path)]
    return {int(row[0]): (row[4], *(round(255 * float(part)) for part in row[1:4])) for row in rows}


def everything(root):
    """What each table says: (name, red, green, blue) by number."""
    assert (root / "dseg.ctbl").read_text().startswith("# Color table file ")
    with open(root / "dseg.tsv", newline="") as file:
        rows = [*csv.DictReader(file, delimiter="\t")]
    bids = {int(row["index"]): (row["name"], *bytes.fromhex(row["color"].removeprefix("#"))) for row in rows}
    slicer = five_cells(root / "dseg.ctbl", lambda k: 255 if k else 0)
    return (
        bids,
        snap(root / "dseg.label"),
        slicer,
        five_cells(root / "dseg_LUT.txt", lambda k: 0),
        fsleyes(root / "dseg.lut"),
    )


def test_all_tables_say_the_same_as_our_pictures(tmp_path):
    classes = load_template().classes
    write_label_tables(tmp_path, dict(enumerate(classes)))
    true = {k: (name, *(round(255 * part) for part in class_colour(k))) for k, name in enumerate(classes)}
    bids, *others, eyes = everything(tmp_path)
    assert bids == true and all(found == true for found in others)
    assert eyes == {k: row for k, row in true.items() if k}
    assert true[2] == ("Cerebral-Cortex", 205, 62, 78)  # FreeSurfer's


def test_numbers_and_names_of_other_parcellations(tmp_path):
    write_label_tables(tmp_path, NUMBERS)
    bids, snapped, slicer, free, eyes = everything(tmp_path)
    assert {k: row[0] for k, row in bids.items()} == NUMBERS == read_label_table(tmp_path / "dseg.tsv")
    assert snapped[2][0] == "Left 'deep' part" and 70000 not in snapped and 70000 in slicer
    assert slicer == free and free[70000][0] == "beyond_16_bits" and eyes[70000][0] == NUMBERS[70000]
    assert len({row[1:] for row in bids.values()}) == len(NUMBERS)


def test_nilearn_reads_the_table(tmp_path):
    write_label_tables(tmp_path, {0: "Background", 2: "Left part", 17: "Hippocampus"})
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1], labels[2] = 2, 17
    masker = NiftiLabelsMasker(nib.Nifti1Image(labels, np.eye(4)), lut=tmp_path / "dseg.tsv").fit()
    found = {row["index"]: (row["name"], row["color"]) for row in masker.lut_.to_dict("records")}
    assert found[2] == ("Left part", "#f5f5f5") and found[17][0] == "Hippocampus"


@pytest.mark.parametrize("colour", ["#0a0B0c", "n/a", "red"])
def test_a_data_set_keeps_its_own_colours(tmp_path, colour):
    (tmp_path / "dseg.tsv").write_text(f"index\tname\tcolor\n0\tBackground\t#000000\n3\tIsland\t{colour}\n")
    write_viewer_tables(tmp_path)
    expected = (10, 11, 12) if colour.startswith("#") else tuple(round(255 * c) for c in class_colour(3))
    assert snap(tmp_path / "dseg.label")[3] == fsleyes(tmp_path / "dseg.lut")[3] == ("Island", *expected)
    before = (tmp_path / "dseg.tsv").read_text()
    write_label_tables(tmp_path, {0: "other"})
    assert (tmp_path / "dseg.tsv").read_text() == before


def test_threads_write_them_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for k in range(20):
            (tmp_path / str(k)).mkdir()
            list(pool.map(lambda _, root=tmp_path / str(k): write_label_tables(root, NUMBERS), range(8)))
            assert len(list((tmp_path / str(k)).iterdir())) == 5
    write_label_tables(tmp_path, {})
    assert not list(tmp_path.glob("dseg*"))
