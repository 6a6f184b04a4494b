"""Tables as people write them: the right row for each subject, or a line that says why there is none."""

import json
import warnings
from pathlib import Path

import pytest

from cortexgen.data.cohort import Scan, read_cohort, write_participants
from cortexgen.errors import UserError
from cortexgen.io.participants import covariates, matched, read_covariates, read_rows
from cortexgen.io.tables import read_table
from cortexgen.studies import find_study


@pytest.fixture
def root(tmp_path):
    """Three subjects, the last with two sessions; a table is written by the tests."""
    for name in ("sub-01/anat/sub-01", "sub-02/anat/sub-02", "sub-10/ses-a/anat/sub-10_ses-a"):
        path = tmp_path / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.touch()
    return tmp_path


def rows(root: Path, text: str | bytes, name: str = "participants.tsv") -> list[dict]:
    """The cohort's covariates with this table, without any warning."""
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [scan.covariates for scan in read_cohort(root)]


SPELLINGS = [
    "01 02 10",
    "1 2 10",
    "sub-01 sub-02 SUB-10",
    "001 002 010",
    "sub-1 Sub-002 0010",
    "0_1 02 1-0",
    "1.0 2.0 10.0",
]


@pytest.mark.parametrize("ids", [*(text.split() for text in SPELLINGS), (" 01", "sub-02 ", " sub-10 ")])
def test_ids_in_any_spelling_find_their_subject(root, ids):
    table = "participant_id\tage\n" + "".join(f"{i}\t{age}\n" for i, age in zip(ids, (20, 30, 40), strict=True))
    assert [row["age"] for row in rows(root, table)] == [20, 30, 40]
    assert [scan.covariates["age"] for scan in find_study(root).scans] == [20, 30, 40]  # both readers are one


def test_padding_and_case_match_only_where_one_subject_can_be_meant():
    assert matched(["1", "01"], ["01", "1"]) == {"1": "1", "01": "01"}
    assert matched(["001"], ["01", "1"]) == {} and matched(["1", "001"], ["01"]) == {}
    assert matched(["ab", "AB"], ["AB"]) == {"AB": "AB"} and matched(["ab"], ["AB", "Ab"]) == {}
    assert matched(["002_S_0295"], ["002S0295"]) == {"002_S_0295": "002S0295"}


HEADS = {
    "byte order mark and CRLF": b"\xef\xbb\xbfparticipant_id\tage\tsex\r\n01\t20\tF\r\n02\t30\tM\r\n10\t40\tF\r\n",
    "semicolons and decimal commas": "participant_id;age;sex\n01;20,0;F\n02;30,0;M\n10;40,0;F\n",
    "commas and quotes": 'participant_id,age,sex\n"01","20","F"\n"02",30,M\n10,40,F\n',
    "upper case": "Participant_ID\tAge\tSEX\n01\t20\tF\n02\t30\tM\n10\t40\tF\n",
    "empty lines and cells": "\nparticipant_id\tage\tsex\n01\t20\tF\n\n02\t30\tM\t\t\n10\t40\tF\n\t\t\n\n",
    "other words": "participant_id\tage_years\tGender\n01\t20\tfemale\n02\t030Y\tMale\n10\t40 years\tf\n",
    "months": "participant_id\tage_months\tsex\n01\t240\tF\n02\t360\tM\n10\t480\tF\n",
    "DICOM": "participant_id\tage\tsex\n01\t020Y\tF\n02\t360M\tM\n10\t40+\tF\n",
    "the same row twice": "participant_id\tage\tsex\n01\t20\tF\n1\t20\tF\n02\t30\tM\n10\t40\tF\n",
    "a column twice": "participant_id\tage\tsex\tAge\n01\t20\tF\t20\n02\t30\tM\t30\n10\t40\tF\t40\n",
    "a quotation mark": 'participant_id\tage\tsex\tnote\n01\t20\tF\t"5 o clock\n02\t30\tM\t\n10\t40\tF\tx"\n',
}


@pytest.mark.parametrize("kind", HEADS)
def test_tables_of_every_make(root, kind):
    assert [(row["age"], row["sex"]) for row in rows(root, HEADS[kind])] == [(20, "F"), (30, "M"), (40, "F")]


@pytest.mark.parametrize("empty", ["n/a", "N/A", "NA", "nan", "NaN", "-", "", " ", "None", "#N/A"])
def test_what_is_not_known_is_none(root, empty):
    table = f"participant_id\tage\tsex\tbmi\n01\t{empty}\t{empty}\t{empty}\n02\t30\tM\t21.5\n10\t90+\tF\t.5\n"
    found = rows(root, table)
    assert found == [
        {"age": None, "sex": None, "bmi": None},
        {"age": 30, "sex": "M", "bmi": 21.5},
        {"age": 90, "sex": "F", "bmi": 0.5},
    ]


def test_a_number_beyond_all_bounds_is_none(root):
    found = rows(root, "participant_id\tiq\n01\t1e400\n02\t100\n10\t90\n")
    assert [row["iq"] for row in found] == ["1e400", "100", "90"]


def test_what_names_things_stays_text(root):
    table = "participant_id\tage\tsite_id\tscanner\tcode\tdose\trid\n01\t25,5\t1\t007\t1\t1,234\t12345678901234567\n"
    found = rows(root, table + "02\t30\t2\t012\tx\t5,678\t2\n10\t40\t3\t100\t3\t9\t3\n")
    assert found[0] == {"age": 25.5, "site_id": "1", "scanner": "007", "code": "1", "dose": "1,234",
                        "rid": "12345678901234567"}  # fmt: skip
    assert [row["code"] for row in found] == ["1", "x", "3"]


def test_codes_and_units_are_those_of_the_tables_json(root):
    described = {"sex": {"Levels": {"1": "male", "0": "female"}}, "age": {"Units": "months"}}
    (root / "participants.json").write_text(json.dumps(described))
    assert rows(root, "participant_id\tage\tsex\n01\t240\t0\n02\t360\t1\n10\t480\t0\n") == [
        {"age": 20, "sex": "F"}, {"age": 30, "sex": "M"}, {"age": 40, "sex": "F"}]  # fmt: skip


def test_a_subject_without_a_row_or_with_two_that_differ_is_warned_of(root):
    (root / "participants.tsv").write_text("participant_id\tage\tsex\n01\t20\tF\n01\t50\tF\n10\t40\tM\n")
    with pytest.warns(UserWarning, match=r"of 2 subject\(s\) are unknown \(sub-01, sub-02\).*2 rows for sub-01.*age"):
        scans = read_cohort(root)
    assert [scan.covariates for scan in scans] == [{}, {}, {"age": 40, "sex": "M"}]
    assert "2 rows for sub-01, which differ in age" in find_study(root).problems["sub-01"]


def test_codes_of_sex_that_nobody_explains_are_warned_of(root):
    (root / "participants.tsv").write_text("participant_id\tsex\n01\t1\n02\t0\n10\t1\n")
    with pytest.warns(UserWarning, match=r"participants.tsv: sex is a number; Levels in participants\.json"):
        assert [scan.covariates["sex"] for scan in read_cohort(root)] == [1, 0, 1]


def test_an_age_that_is_none_is_warned_of(root):
    (root / "participants.tsv").write_text("participant_id\tage\n01\t20-25\n02\t30\n10\told\n")
    with pytest.warns(UserWarning, match=r"participants.tsv: 2 age\(s\) are no number of years, '20-25'"):
        assert [scan.covariates["age"] for scan in read_cohort(root)] == [None, 30, None]


def test_sessions_in_their_own_table_or_in_the_one_of_participants(tmp_path):
    scans = [("01", "1"), ("01", "2"), ("02", "")]
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsession_id\tage\nsub-01\tses-01\t20\nsub-01\tSES-02\t21\nsub-02\tbl\t30\n"
    )
    assert read_covariates(tmp_path, scans) == [{"age": 20}, {"age": 21}, {"age": 30}]
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\n01\t20\tF\n02\t30\tM\n")
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\n01\tn/a\nses-2\t22\n")
    expected = [{"age": 20, "sex": "F"}, {"age": 22, "sex": "F"}, {"age": 30, "sex": "M"}]
    assert read_covariates(tmp_path, scans) == expected
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\n1\t20\nses-1\t22\n")
    with pytest.raises(UserError, match=r"sub-01_sessions\.tsv: rows of session 1 differ"):
        read_covariates(tmp_path, scans)


BAD = {
    "UTF-16": ("participant_id\tage\n01\t20\n".encode("utf-16"), "UTF-8"),
    "UTF-16 without a mark": ("participant_id\tage\n01\t20\n".encode("utf-16-le"), "zero bytes"),
    "Latin-1": ("participant_id\tsite\n01\tKöln\n".encode("latin-1"), "UTF-8"),
    "a longer row": (b"participant_id\tage\n01\t20\n02\t30\tM\n", "line 3 has 3 cells, the header 2"),
    "two columns of one name": (b"participant_id\tage\tAge\n01\t20\t21\n", "two columns are called age"),
    "no column of subjects": (b"person\tage\n01\t20\n", "expected a column participant_id, found person, age"),
    "no rows": (b"participant_id\tage\n\n\t\n", "no rows"),
    "nothing": (b"", "no rows"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_table_that_cannot_be_read_is_named(root, kind):
    content, reason = BAD[kind]
    with pytest.raises(UserError, match=rf"participants\.tsv: .*{reason}"):
        rows(root, content)


def test_what_is_written_comes_back_exactly(root):
    names = ["sub-01", "sub-02", "sub-10_ses-a"]
    values = [
        {"age": 25.123456789, "group": "1", "rid": 4176382.0, "brain_volume_ml": 1 / 3, "code": "007", "note": "a b"},
        {"age": 0.1, "group": "x y", "rid": 1e15, "brain_volume_ml": None, "code": "1e5", "note": 'say "no"'},
        {"age": 90.0, "group": None, "rid": 0.1, "brain_volume_ml": 1e22, "code": "12", "note": "ü, ;"},
    ]
    scans = [Scan(n, n.split("_")[0], Path(), covariates=v) for n, v in zip(names, values, strict=True)]
    write_participants(root, scans)
    assert [scan.covariates for scan in read_cohort(root)] == values


def test_a_large_cohort_takes_no_longer_than_its_table(tmp_path):
    scans = [(f"{k:05d}", "") for k in range(3000)]
    table = tmp_path / "t.csv"
    table.write_text("participant_id,age\n" + "".join(f"{k},{k % 80}\n" for k in range(3000)))
    found = read_rows(table, scans)
    assert all(found[f"{k:05d}", ""] == [{"age": k % 80}] for k in range(3000))


def test_one_row_is_a_table_too():
    assert covariates([{"dx": "AD", "gender": "woman", "age": "063Y"}]) == [
        {"dx": "AD", "gender": "woman", "age": 63, "sex": "F", "group": "AD"}]  # fmt: skip


def test_the_separator_is_the_headers(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb, c; d\n1\t2, 3; 4, 5\n")
    assert read_table(tmp_path / "t.tsv") == [{"a": "1", "b_c_d": "2, 3; 4, 5"}]
