import pytest

from cortexgen.studies.found import kind_of

MARKS = ("sub-01", "002_S_0295", "cases/NCANDA_S00033")  # a folder of each study, in the order in which they are asked


@pytest.mark.parametrize(("first", "kind"), enumerate(("bids", "adni", "ncanda", "folder")))
def test_the_most_telling_layout_wins(tmp_path, first, kind):
    (tmp_path / "scan.nii.gz").touch()
    for mark in MARKS[first:]:
        (tmp_path / mark).mkdir(parents=True)
    assert kind_of(tmp_path) == kind
