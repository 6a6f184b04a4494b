import numpy as np
import pytest
import torch

from cortexgen.atlas.labels import distinct, numbered, read_label_table, read_labels
from cortexgen.errors import UserError
from cortexgen.io import Grid, write_volume

GRID = Grid((9, 10, 11), np.array([[0, 0, 4, -20], [0, 4, 0, -20], [4, 0, 0, -12], [0, 0, 0, 1.0]]))


def dseg(path, *numbers, kind=np.int32):
    """Slabs of labels, the first in the corner."""
    labels = torch.tensor(numbers)[torch.arange(9) * len(numbers) // 9].view(1, 9, 1, 1).expand(1, *GRID.shape)
    write_volume(path, labels.contiguous(), GRID, kind)
    return labels


@pytest.mark.parametrize("kind", [np.uint32, np.float64])
def test_large_numbers_become_classes_and_come_back(tmp_path, kind):
    given = dseg(tmp_path / "dseg.nii.gz", 0, 12175, 2035, 2**31 + 1, kind=kind)
    found = read_labels(tmp_path / "dseg.nii.gz")
    assert found.numbers == (0, 2035, 12175, 2**31 + 1)
    assert found.names == ("label-0", "label-2035", "label-12175", "label-2147483649")
    assert found.labels.unique().tolist() == [0, 1, 2, 3] and torch.equal(numbered(found.labels, found.numbers), given)
    half = found.to(GRID.at_spacing(8.0))
    assert half.labels.shape == (1, *half.grid.shape) and half.labels.unique().tolist() == [0, 1, 2, 3]


def test_labels_beside_the_image_are_refused(tmp_path):
    dseg(tmp_path / "dseg.nii.gz", 0, 5, 2)
    found, elsewhere = read_labels(tmp_path / "dseg.nii.gz"), GRID.affine.copy()
    elsewhere[0, 3] += 500
    with pytest.raises(UserError, match=r"dseg\.nii\.gz: none of its labels lies in the image"):
        found.to(Grid(GRID.shape, elsewhere))


def test_small_numbers_stay_classes_with_their_gaps(tmp_path):
    given = dseg(tmp_path / "dseg.nii.gz", 0, 5, 2)
    found = read_labels(tmp_path / "dseg.nii.gz")
    assert found.numbers == (0, 1, 2, 3, 4, 5) and torch.equal(found.labels, given) and len(found.names) == 6


TABLES = {
    "gaps, extra rows and no row for 0": "index\tname\n2035\tinsula\n7\tpons\n9999\tnowhere\n",
    "indices of a spreadsheet": "index;name;color\n2035.0;insula;#fff\n7.0;pons;\n9999;nowhere;\n0;Background;\n",
    "repeated rows": "index\tname\n0\tBackground\n2035\tinsula\n7\tpons\n7\tpons\n9999\tnowhere\n",
    "other case and order": "Name,Index\nnowhere,9999\ninsula,2035\npons,7\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_name_what_occurs(kind, tmp_path):
    dseg(tmp_path / "dseg.nii.gz", 0, 2035, 7)
    (tmp_path / "dseg.tsv").write_text(TABLES[kind])
    found = read_labels(tmp_path / "dseg.nii.gz", tmp_path / "dseg.tsv")
    assert found.numbers == (0, 7, 2035, 9999) and found.names == ("Background", "pons", "insula", "nowhere")


def test_names_that_repeat_or_would_break_a_table_are_told_apart(tmp_path):
    (tmp_path / "dseg.tsv").write_text(
        'index\tname\n1\tInsula\n2\tInsula\n3\t"a\tb\n c"\n4\t1\n5\tn/a\n6\tleft/right\n'
    )
    names = read_label_table(tmp_path / "dseg.tsv")
    assert names == {1: "Insula", 2: "Insula", 3: "a b c", 4: "1", 5: "n/a", 6: "left/right"}
    assert list(distinct(names).values())[:2] == ["Insula (1)", "Insula (2)"]
    assert len(set(distinct({1: "a", 2: "a", 3: "a (1)"}).values())) == 3
    assert distinct({0: "rest", 4: "before"}) == {0: "rest", 4: "before (4)"}  # a column is called dice_before


@pytest.mark.parametrize("table, reason", [
    ("index\tname\n0\tBackground\n7\tpons\n", r"no name for label 2035 of .*dseg\.nii\.gz"),
    ("index\tname\n7\tpons\n7\tinsula\n2035\tx\n", "index 7 has two names, pons and insula"),
    ("index\tname\n7.5\tpons\n", "expected whole numbers in the column index, found '7.5'"),
    ("index\tname\nseven\tpons\n", "expected whole numbers in the column index, found 'seven'"),
    ("index\tname\nnan\tpons\n", "expected whole numbers in the column index, found 'nan'"),
    ("index\tname\n1e999\tpons\n", "expected whole numbers in the column index, found '1e999'"),
    ("label\tname\n7\tpons\n", "expected columns index and name, found label, name"),
])  # fmt: skip
def test_tables_that_name_nothing_are_refused(table, reason, tmp_path):
    dseg(tmp_path / "dseg.nii.gz", 0, 2035, 7)
    (tmp_path / "dseg.tsv").write_text(table)
    with pytest.raises(UserError, match=rf"dseg\.tsv: {reason}"):
        read_labels(tmp_path / "dseg.nii.gz", tmp_path / "dseg.tsv")


def test_negative_labels_are_refused(tmp_path):
    dseg(tmp_path / "dseg.nii.gz", 0, -3, 7)
    with pytest.raises(UserError, match=r"dseg\.nii\.gz: labels must not be negative, found -3"):
        read_labels(tmp_path / "dseg.nii.gz")
