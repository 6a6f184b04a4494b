"""Several cohorts as one: who is who, of which cohort, and on which side of the split."""

import shutil
import warnings
from pathlib import Path

import pytest
import yaml

from cortexgen.cli import run
from cortexgen.data.cohort import read_cohort, split_subjects
from cortexgen.data.cohorts import all_scans, by_cohort, folders_of, pipelines, read_cohorts
from cortexgen.data.fields import FieldDataModule
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, read_volume, write_field, write_volume
from cortexgen.io.bids import read_tsv, write_tsv
from cortexgen.modules.base import check_contract

CLASH = r"ignore:.*stand in several cohorts|.*no split of stage 1"


def folder(root, subjects, **columns):
    """A data set of empty images."""
    for name in subjects:
        path = root / name / "anat" / f"{name.replace('/', '_')}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.touch()
    if columns:
        who = [name.split("/")[0] for name in subjects]
        write_tsv(
            root / "participants.tsv", [{"participant_id": s, **{k: v[s] for k, v in columns.items()}} for s in who]
        )
    return root


def found(*roots):
    with warnings.catch_warnings():
        warnings.filterwarnings(CLASH.split(":")[0], message=CLASH.split(":")[1])
        return read_cohorts(folders_of(list(roots)), read_cohort)


def rows(*roots):
    return {scan.name: scan.covariates for scan in all_scans(found(*roots))}


def test_one_folder_is_what_it_was(tmp_path):
    root = folder(tmp_path / "a", ["sub-01", "sub-02"], age={"sub-01": 30, "sub-02": 40})
    assert all_scans(found(root)) == read_cohort(root) and "cohort" not in rows(root)["sub-01"]


def test_subjects_keep_their_cohort_and_only_ids_that_clash_change(tmp_path):
    a = folder(tmp_path / "site-a", ["sub-01/ses-1", "sub-01/ses-2", "sub-02"])
    b = folder(tmp_path / "site2", ["sub-01", "sub-x", "sub-9"])
    c = folder(tmp_path / "c", ["sub-9", "sub-y"])
    cohorts = {name: row["cohort"] for name, row in rows(a, b).items()}
    assert cohorts == {
        "sub-sitea01_ses-1": "site-a",
        "sub-sitea01_ses-2": "site-a",
        "sub-02": "site-a",
        "sub-site2x01": "site2",
        "sub-x": "site2",
        "sub-9": "site2",
    }
    assert rows(a, b) == rows(b, a) and list(rows(a, b)) == list(rows(b, a))
    more = rows(a, b, c)
    assert set(cohorts) - set(more) == {"sub-9"} and {"sub-site2x9", "sub-c9", "sub-y"} <= set(more)
    with pytest.warns(UserWarning, match=r"1 id\(s\) .* sub-01 of site-a is called sub-sitea01, sub-01 of site2"):
        read_cohorts(folders_of([a, b]), read_cohort)


def test_a_column_of_the_table_wins_and_is_text(tmp_path):
    a = folder(tmp_path / "a", ["sub-01", "sub-02"], cohort={"sub-01": 7, "sub-02": 8}, wave={"sub-01": 1, "sub-02": 2})
    b = folder(tmp_path / "b", ["sub-03"], wave={"sub-03": "late"})
    assert rows(a) == {"sub-01": {"cohort": "7", "wave": 1.0}, "sub-02": {"cohort": "8", "wave": 2.0}}
    assert rows(a, b) == {
        "sub-01": {"cohort": "7", "wave": "1"},
        "sub-02": {"cohort": "8", "wave": "2"},
        "sub-03": {"cohort": "b", "wave": "late"},
    }


def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path):
    places = [tmp_path / site / "fields" for site in ("x", "y")]
    assert folders_of(places) == {"x/fields": places[0], "y/fields": places[1]} == folders_of(places[::-1])
    a, b = (folder(place, ["sub-1"]) for place in places)
    assert {name: row["cohort"] for name, row in rows(a, b).items()} == {
        "sub-xfields1": "x/fields",
        "sub-yfields1": "y/fields",
    }


def test_mistakes_are_one_line(tmp_path):
    a, b, c = (folder(tmp_path / name, ["sub-1"]) for name in ("a", "b", "b-"))
    for roots, message in (([], "got an empty list"), ([a, a / ".." / "a"], "a: given twice")):
        with pytest.raises(UserError, match=message):
            folders_of(roots)
    with pytest.raises(UserError, match="sub-1 of b would be called sub-b1, as another subject is; rename a folder"):
        found(a, b, c)
    with pytest.raises(UserError, match=r"T1w.nii.gz: a file; expected folders in a list"):
        found(a, next(b.rglob("*.nii.gz")))


def test_the_split_of_a_cohort_is_its_own_whoever_stands_beside_it(tmp_path):
    a = folder(tmp_path / "a", [f"sub-{k:02d}/ses-{s}" for k in range(20) for s in (1, 2)])
    b = folder(tmp_path / "b", [f"sub-{k:02d}" for k in range(10, 40)])
    both = found(a, b)
    for seed in range(4):
        shares = {"val": 0.2, "test": 0.1, "seed": seed}
        sides = split_subjects([s.subject for s in all_scans(both)], cohorts=[c.called for c in both], **shares)
        for cohort, root in zip(both, (a, b), strict=True):
            alone = split_subjects([s.subject for s in read_cohort(root)], **shares)
            assert {own: sides[now] for own, now in cohort.called.items()} == alone
    counted = split_subjects(list(sides), val=7, test=0, cohorts=[c.called for c in both])
    assert sorted(counted.values()).count("val") == 7 and len(counted) == 50
    named = split_subjects(list(sides), val_subjects=["a10"], test=0, cohorts=[c.called for c in both])
    assert [name for name, side in named.items() if side == "val"] == ["sub-a10"]
    with pytest.raises(UserError, match=r"sub-10 not in the cohort of 50 subjects; did you mean sub-a10 or sub-b10\?"):
        split_subjects(list(sides), val_subjects=["10"])


def test_weights_of_several_cohorts_know_the_preprocessing_of_each():
    n4, none = [{"Name": "N4"}], []
    assert by_cohort({"a": n4}) == n4 and pipelines(n4) == [n4]
    both = by_cohort({"a": n4, "b": none})
    assert pipelines(by_cohort({"x": both, "y": n4})) == [n4, none, n4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in (both, n4, none):
            check_contract({"preprocessing": both}, {"preprocessing": made})
    for made in ([{"Name": "other"}], by_cohort({"a": n4, "c": [{"Name": "other"}]})):
        with pytest.warns(UserWarning, match="was trained on data preprocessed as"):
            check_contract({"preprocessing": both}, {"preprocessing": made})


@pytest.fixture(scope="module")
def two(cohort, tmp_path_factory):
    """The simulated cohort, and three of its subjects as another one."""
    other = tmp_path_factory.mktemp("two") / "other"
    for name in ("sub-0001", "sub-0002", "sub-0003"):
        shutil.copytree(cohort / name, other / name)
    return f"[{cohort},{other}]", cohort, other


@pytest.mark.filterwarnings(CLASH)
def test_both_stages_and_generate_through_the_command_line(two, verb, tmp_path):
    roots, cohort, _ = two
    where = ("--data.root", roots, "--trainer.default_root_dir", tmp_path / "r")
    module = verb("fit", "register.yaml", *where).model
    assert [entry["Cohort"] for entry in module.contract["preprocessing"]] == ["cohort", "other"]
    verb("predict", "register.yaml", *where, "--ckpt_path", "last", "--output", tmp_path / "fields")
    people = {row["participant_id"]: row for row in read_tsv(tmp_path / "fields" / "participants.tsv")}
    table = {row["participant_id"]: row for row in read_tsv(tmp_path / "fields" / "registration.tsv")}
    assert len(people) == 8 and {people[n]["cohort"] for n in people} == {"cohort", "other"}
    assert table.keys() == people.keys() and all(table[n]["cohort"] == people[n]["cohort"] for n in table)
    assert people["sub-cohort0001"]["age"] == read_tsv(cohort / "participants.tsv")[0]["age"]
    assert people["sub-other0001"]["cohort"] == "other" and people["sub-0004"]["cohort"] == "cohort"

    where = ("--data.root", tmp_path / "fields", "--trainer.default_root_dir", tmp_path / "g")
    cli = verb("fit", "generate.yaml", *where, "--model.covariates", "[cohort]")
    assert cli.model.contract["covariates"]["cohort"]["levels"] == ["cohort", "other"]
    assert cli.datamodule.split == {name: row["split"] for name, row in table.items()}
    weights = ["--checkpoint", str(tmp_path / "g" / "checkpoints" / "last.ckpt"), "--resolution", "8", "--steps", "2"]
    module = cli.model
    module.conditions = None
    drawn = [module.sample(0, conditions={"cohort": name}) for name in ("cohort", "other")]
    assert (drawn[0] - drawn[1]).abs().max() > 0.01 * drawn[0].abs().max()
    with pytest.raises(UserError, match="cohort: 'elsewhere' is none of cohort, other"):
        run(["generate", str(tmp_path / "no"), *weights, "--cohort", "elsewhere"])
    with pytest.raises(UserError, match="'cohort' is not a covariate of these weights"):
        run(["generate", str(tmp_path / "no"), "--checkpoint", "generate-ds002748-2mm", "--cohort", "other"])


@pytest.mark.filterwarnings(CLASH)
def test_stage_2_reads_several_registrations(registered, tmp_path):
    fields = registered[1]
    shutil.copytree(fields, tmp_path / "other")
    data = FieldDataModule([fields, tmp_path / "other"])
    data.setup("fit")
    alone = FieldDataModule(fields)
    alone.setup("fit")
    assert {scan.covariates["cohort"] for scan in data.scans} == {fields.name, "other"}
    for name, side in alone.split.items():
        assert {data.split[f"sub-{c}{name.removeprefix('sub-')}"] for c in (fields.name, "other")} == {side}
    assert pipelines(data.contract()["preprocessing"]) == 2 * [alone.contract()["preprocessing"]]
    rest = ("grid", "image_grid", "template", "integration_steps")
    assert all(data.contract()[key] == alone.contract()[key] for key in rest)


@pytest.mark.filterwarnings("ignore:.*left out", CLASH)
def test_a_cohort_on_another_grid_is_refused(two, registered, tmp_path):
    _, cohort, other = two
    shifted = shutil.copytree(other, tmp_path / "shifted")
    for path in shifted.glob("sub-*/anat/*_T1w.nii.gz"):
        image, grid = read_volume(path)
        affine = grid.affine.copy()
        affine[0, 3] += 4
        write_volume(path, image, Grid(grid.shape, affine))
    with pytest.raises(
        UserError, match=r"shifted: none of its 3 scans fits the others: .*its grid is .*the cohort's is"
    ):
        RegistrationDataModule([cohort, shifted]).setup("fit")
    fields = shutil.copytree(registered[1], tmp_path / "fields2")
    for path in fields.glob("sub-*/anat/*_desc-velocity_field.nii.gz"):
        field, grid = read_field(path)
        affine = grid.affine.copy()
        affine[0, 3] += 4
        write_field(path, field, Grid(grid.shape, affine))
    with pytest.raises(UserError, match=r"fields2.*its grid is .*; the fields before it have"):
        FieldDataModule([registered[1], fields]).setup("fit")


def test_one_root_is_saved_as_one(cohort, verb, tmp_path):
    verb("fit", "register.yaml", "--data.root", cohort, "--trainer.default_root_dir", tmp_path)
    assert Path(yaml.safe_load((tmp_path / "config.yaml").read_text())["data"]["init_args"]["root"]) == cohort
