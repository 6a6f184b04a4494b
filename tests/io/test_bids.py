import hashlib
import json
from pathlib import Path

import pytest

from cortexgen.errors import UserError
from cortexgen.io import bids
from cortexgen.io.output import claim


def test_names():
    root = Path("out")
    assert bids.anat(root, "sub-01_ses-2") == Path("out/sub-01/ses-2/anat")
    name = "sub-01_from-MNI152NLin2009aSym_to-T1w_mode-image_xfm.nii.gz"
    assert bids.transform(root, "sub-01", "MNI152NLin2009aSym", "T1w") == Path("out/sub-01/anat", name)
    velocity = bids.derivative(root, "sub-01", "field", space="MNI152NLin2009aSym", desc="velocity")
    assert velocity.name == "sub-01_space-MNI152NLin2009aSym_desc-velocity_field.nii.gz"


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_sidecar_lies_beside_its_image(ending):
    assert bids.sidecar(Path("a.b/sub-01_T1w" + ending)) == Path("a.b/sub-01_T1w.json")


def test_a_table_comes_back_with_its_types(tmp_path):
    rows = [
        {"participant_id": "sub-01", "age": 31.25, "sex": "F", "sessions": 2},
        {"participant_id": "sub-02", "age": None, "sex": "M", "note": "a\tb\r\n c\u2028d"},
        {"participant_id": "0003", "age": float("nan"), "sex": None},
    ]
    bids.write_tsv(tmp_path / "t.tsv", rows)
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    assert len(lines) == 4 and {len(line.split("\t")) for line in lines} == {5}
    assert lines[0].split("\t") == ["participant_id", "age", "sex", "sessions", "note"]
    assert lines[1].split("\t") == ["sub-01", "31.25", "F", "2", "n/a"]
    back = bids.read_tsv(tmp_path / "t.tsv")
    assert back[0] == {"participant_id": "sub-01", "age": 31.25, "sex": "F", "sessions": 2.0, "note": None}
    assert back[1]["age"] is None and back[1]["note"] == "a b c d"
    assert back[2]["participant_id"] == "0003" and back[2]["age"] is None and back[2]["sex"] is None


def test_a_table_of_a_spreadsheet_with_byte_order_mark_and_crlf_is_read(tmp_path):
    (tmp_path / "p.tsv").write_bytes(b"\xef\xbb\xbfparticipant_id\tage\r\nsub-01\t 31 \r\nsub-02\tn/a\r\n")
    assert bids.read_tsv(tmp_path / "p.tsv") == [
        {"participant_id": "sub-01", "age": 31.0},
        {"participant_id": "sub-02", "age": None},
    ]


@pytest.mark.parametrize("content, text", [(None, "no such file"), ("", "no rows"), ("a\tb\n", "no rows")])
def test_a_table_without_rows_is_an_error_that_names_it(tmp_path, content, text):
    if content is not None:
        (tmp_path / "p.tsv").write_text(content)
    with pytest.raises(UserError, match=rf"p\.tsv: .*{text}"):
        bids.read_tsv(tmp_path / "p.tsv")


def test_a_data_set_says_who_made_it(tmp_path):
    bids.describe_dataset(tmp_path, "Registrations", {"Command": "cortexgen predict"})
    content = json.loads((tmp_path / "dataset_description.json").read_text())
    assert content["Name"] == "Registrations" and content["DatasetType"] == "derivative"
    (made,) = content["GeneratedBy"]
    assert made["Name"] == "cortexgen" and made["Version"] and made["Command"] == "cortexgen predict"
    assert "**/*_xfm.*" in (tmp_path / ".bidsignore").read_text().splitlines()


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"cortex")
    assert bids.sha256(tmp_path / "a") == hashlib.sha256(b"cortex").hexdigest()


def test_output_folder_is_made_or_refused(tmp_path):
    claim(tmp_path / "a" / "b", lambda _: False)
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot write there"):
        claim(tmp_path / "file", lambda _: False)
