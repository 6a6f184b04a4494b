"""Every command writes to a new folder or to its own; what others put there stays, and tables hold what folders do."""

import json
import os
import shutil

import pytest

from cortexgen.cli import main, run
from cortexgen.commands.evaluate import named_sets
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.io import write_json
from cortexgen.io.atomic import temporary_name
from cortexgen.io.bids import read_tsv, write_tsv
from cortexgen.io.output import claim, open_run
from cortexgen.simulation.cohort import simulate_cohort

MADE = {"Template": "T", "Parameters": {"steps": 2}}
QUICK = (
    "--labels",
    "none",
    "--features",
    "null",
    "--protocol",
    "standard",
    "--pairs",
    "2",
    "--resamples",
    "5",
    "--device",
    "cpu",
)
QUICK += ("--features", "null")  # which no test here is about


def state(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def weights(registered):
    return ("--checkpoint", str(registered[0] / "checkpoints" / "last.ckpt"))


@pytest.fixture
def call(cohort, registered, trained_generator, weights, tmp_path):
    """Each command into a folder."""
    stage_2 = trained_generator / "checkpoints" / "last.ckpt"
    fit = [
        "fit",
        "--config",
        "register.yaml",
        "--data.root",
        str(cohort),
        "--wandb",
        "off",
        "--trainer.default_root_dir",
    ]
    predict = [
        "predict",
        "--config",
        "register.yaml",
        "--data.root",
        str(cohort),
        "--ckpt_path",
        weights[1],
        "--output",
    ]
    export = registered[0] / "checkpoints" / "last.ckpt"
    calls = {
        "preprocess": lambda out: ["preprocess", str(cohort), out],
        "register": lambda out: ["register", str(cohort), out, *weights],
        "generate": lambda out: ["generate", out, "--checkpoint", str(stage_2), "--num-samples", "1"],
        "evaluate": lambda out: ["evaluate", str(cohort), f"a={cohort}", out, *QUICK],
        "pairs": lambda out: ["evaluate", str(cohort), f"a={registered[1]}", out, "--registration"],
        "simulate": lambda out: ["simulate", out, "--subjects", "1", "--spacing", "8"],
        "demo": lambda out: ["demo", out, "--subjects", "16"],
        "fit": lambda out: [*fit, out],
        "predict": lambda out: [*predict, out],
        "export": lambda out: ["export", str(export), out + "/x.safetensors"],
    }
    return lambda name, out: run(calls[name](str(out)))


COMMANDS = ["preprocess", "register", "generate", "evaluate", "pairs", "simulate", "demo", "fit", "predict"]
FOREIGN = {
    "participants.tsv": "participant_id\tage\nsub-1\t3\n",
    "report.html": "mine",
    ".bidsignore": "extra/\n",
    "preprocess.tsv": "a\tb\n1\t2\n",
    "config.yaml": "a: 1\n",
    "dataset_description.json": '{"Name": "study", "GeneratedBy": [{"Name": "fmriprep"}]}',
    "evaluation.json": "{}",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_somebody_elses_is_refused_as_it_is(command, call, tmp_path):
    slow = {"predict": ["participants.tsv"], "simulate": ["report.html"], "fit": ["config.yaml"]}
    for name, content in ((name, FOREIGN[name]) for name in slow.get(command, FOREIGN)):
        out = tmp_path / name.replace(".", "")
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(UserError, match="holds"):
            call(command, out)
        assert state(out) == {(out / name).relative_to(out): content.encode()}, name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_and_an_input_are_no_output_folders(command, call, cohort, tmp_path):
    before = state(cohort)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "file", tmp_path / "link", cohort):
        if command == "simulate" and out == cohort:
            continue  # which is its own
        with pytest.raises(UserError):
            call(command, out)
    assert state(cohort) == before and (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_export_overwrites_neither_weights_nor_a_card(call, tmp_path):
    (tmp_path / "x.json").write_text("mine")
    with pytest.raises(UserError, match=r"x\.json: is there already"):
        call("export", tmp_path)
    assert state(tmp_path) == {(tmp_path / "x.json").relative_to(tmp_path): b"mine"}


def test_hidden_and_unfinished_files_make_no_folder_foreign(tmp_path):
    (tmp_path / ".git").mkdir()
    gone = temporary_name("x_T1w.nii.gz").replace(f"-{os.getpid()}-", "-999999999-")
    for name in (".DS_Store", "._x.nii.gz", "Thumbs.db", gone):
        (tmp_path / name).touch()
    open_run(tmp_path, "name", MADE)
    open_run(tmp_path, "name", MADE)
    assert not (tmp_path / gone).exists() and (tmp_path / "._x.nii.gz").exists()


def test_the_same_settings_go_on_and_what_the_user_added_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/cortexgen", "a"])
    open_run(tmp_path / "out", "name", MADE)
    path = tmp_path / "out" / "dataset_description.json"
    content = json.loads(path.read_text()) | {"Authors": ["me"]}
    write_json(path, content)
    (tmp_path / "out" / ".bidsignore").write_text("mine\n")
    monkeypatch.setattr("sys.argv", ["/bin/cortexgen", "b"])
    open_run(tmp_path / "out", "name", MADE)
    assert json.loads(path.read_text()) == content and (tmp_path / "out" / ".bidsignore").read_text() == "mine\n"
    open_run(tmp_path / "out", "name", {**MADE, "Parameters": {"steps": 2, "new": 1}})  # of a later version
    for other in ({**MADE, "Parameters": {"steps": 3}}, {**MADE, "Template": "U"}, {**MADE, "Weights": "x"}):
        with pytest.raises(UserError, match=r"holds another run, with|holds something else, made by cortexgen a"):
            open_run(tmp_path / "out", "name", other)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"GeneratedBy": 3}', '{"GeneratedBy": [3]}', '{"GeneratedBy": {}}', "\x00"]
)
def test_a_damaged_description_is_one_line(content, tmp_path):
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset_description\.json|something else"):
        open_run(tmp_path, "name", MADE)


@pytest.mark.parametrize("place", ["", "sub-01", "sub-01/anat/out", "x/002_S_0295/out", "sub-new"])
def test_no_output_among_a_subjects_files(place, tmp_path):
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(UserError, match="read"):
        claim(tmp_path / place, lambda _: False, [tmp_path])
    for good in ("derivatives/cortexgen", "results/run1"):
        assert claim(tmp_path / good, lambda _: False, [tmp_path])


@pytest.mark.parametrize("content", [b"", b"name\tage\nx\t3\n", b"\xff"])
@pytest.mark.parametrize("table", ["registration.tsv", "participants.tsv"])
def test_a_table_that_was_spoilt_is_found_before_the_work(
    table, content, registered, cohort, verb, tmp_path, monkeypatch
):
    out = shutil.copytree(registered[1], tmp_path / "out")
    (out / table).write_bytes(content)
    shutil.rmtree(out / "sub-0001")
    monkeypatch.setattr("cortexgen.registration.writer.write_registered", lambda *_: pytest.fail("worked"))
    with pytest.raises(UserError, match=table):
        where = ("--data.root", cohort, "--trainer.default_root_dir", registered[0])
        verb("predict", "register.yaml", *where, "--ckpt_path", "last", "--output", out)


def test_images_that_join_leave_the_others_in_the_tables(cohort, weights, tmp_path):
    images = sorted(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    out, inputs = tmp_path / "out", []
    for k, image in enumerate(images[:3]):
        inputs.append(tmp_path / f"in{k}" / f"sub-{k}_T1w.nii.gz")
        inputs[-1].parent.mkdir()
        shutil.copy(image, inputs[-1])
    inputs[2].write_bytes(b"no image")
    run(["register", str(inputs[0]), str(out), *weights])
    (row,) = read_tsv(out / "participants.tsv")
    write_tsv(out / "participants.tsv", [row | {"hand": "left"}])
    with pytest.raises(UserError, match="1 of 1"):
        run(["register", str(inputs[2]), str(out), *weights])
    run(["register", str(inputs[1]), str(out), *weights])
    rows = {r["participant_id"]: r for r in read_tsv(out / "registration.tsv")}
    assert {n: r["status"][:6] for n, r in rows.items()} == {"sub-0": "ok", "sub-1": "ok", "sub-2": "failed"}
    assert rows["sub-0"]["ssim"]
    people = {r["participant_id"]: r for r in read_tsv(out / "participants.tsv")}
    assert list(people) == ["sub-0", "sub-1"] and people["sub-0"]["hand"] == "left"
    run(["register", str(inputs[0]), str(out), *weights])  # nor does a second call take the column away
    assert read_tsv(out / "participants.tsv")[0]["hand"] == "left"
    shutil.rmtree(out / "sub-0")  # what isn't there is in no table
    run(["register", str(inputs[1]), str(out), *weights])
    assert {r["participant_id"] for r in read_tsv(out / "registration.tsv")} == {"sub-1", "sub-2"}


def test_fewer_brains_than_before_leave_all_in_the_tables(trained_generator, tmp_path):
    out = tmp_path / "out"
    options = [
        "--checkpoint",
        str(trained_generator / "checkpoints" / "last.ckpt"),
        "--steps",
        "2",
        "--resolution",
        "8",
    ]
    common = ["generate", str(out), *options]
    run([*common, "--num-samples", "2"])
    before = state(out)
    run([*common, "--num-samples", "1"])
    assert state(out) == before
    assert len(read_tsv(out / "participants.tsv")) == 2
    assert json.loads((out / "manifest.json").read_text())["samples"] == 2


def test_a_subject_folder_that_leads_elsewhere_costs_that_subject(cohort, weights, tmp_path):
    images, elsewhere, out = tmp_path / "in", tmp_path / "elsewhere", tmp_path / "out"
    images.mkdir()
    elsewhere.mkdir()
    for k, image in enumerate(sorted(cohort.glob("sub-*/anat/*_T1w.nii.gz"))[:2]):
        shutil.copy(image, images / f"sub-{k}_T1w.nii.gz")
    run(["register", str(images / "sub-1_T1w.nii.gz"), str(out), *weights])
    shutil.rmtree(out / "sub-1")
    (out / "sub-0").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"sub-0: .*outside of"):
        run(["register", str(images), str(out), *weights])
    assert not list(elsewhere.iterdir())
    rows = {r["participant_id"]: r["status"] for r in read_tsv(out / "registration.tsv")}
    assert rows["sub-1"] == "ok" and "outside of" in rows["sub-0"]


def test_a_misnamed_subject_is_written_inside(cohort, weights, tmp_path, recwarn):
    place, out = tmp_path / "in" / "sub-1_.._.._evil" / "anat", tmp_path / "a" / "out"
    place.mkdir(parents=True)
    shutil.copy(next(cohort.glob("sub-*/anat/*_T1w.nii.gz")), place / "sub-1_T1w.nii.gz")
    run(["register", str(tmp_path / "in"), str(out), *weights])
    assert [r["participant_id"] for r in read_tsv(out / "registration.tsv")] == ["sub-1evil"]
    assert any("called sub-1evil" in str(w.message) for w in recwarn)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "a"} and [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["../../../../study", "/etc", "a/b", "", "..", ".x", "~", "a\nb"])
def test_a_set_has_a_name_that_can_be_a_folders(name, tmp_path):
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="can't be called"):
        named_sets([f"{name}={tmp_path / 's'}"])


def test_an_evaluation_removes_nothing_outside_and_keeps_its_sets(cohort, tmp_path, monkeypatch):
    study, out = tmp_path / "study=s", tmp_path / "a" / "b" / "out"
    shutil.copytree(cohort, study)
    shutil.copytree(cohort, tmp_path / "s")
    before = state(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="can't be called"):
        run(["evaluate", str(cohort), "../../../../study=s", str(out), *QUICK])
    assert state(tmp_path) == before
    run(["evaluate", str(cohort), f"a={cohort}", str(out), *QUICK])
    tables = state(out / "tables")
    with pytest.raises(UserError, match="its tables hold a"):
        run(["evaluate", str(cohort), f"b={cohort}", str(out), *QUICK])
    assert state(out / "tables") == tables
    run(["evaluate", str(cohort), f"a={cohort}", f"b={tmp_path / 's'}", str(out), *QUICK])


def test_an_unfinished_file_of_a_killed_run_stops_nobody(cohort, tmp_path):
    """Today's cohorts have it beside the image, with the image's ending."""
    root = shutil.copytree(cohort, tmp_path / "cohort")
    for scan in read_cohort(root):
        for path in (scan.image, scan.image.with_name(scan.image.name.replace("_T1w", "_dseg"))):
            (path.parent / f".tmp-{os.uname().nodename}-999999999-{path.name}").write_bytes(b"half")
    half = next((root / "truth").glob("sub-*/anat/*_desc-velocity_field.json"))
    half.with_name(f".tmp-{os.uname().nodename}-999999999-{half.name}").write_text('{"Cov')
    assert len(read_cohort(root)) == 5
    simulate_cohort(root, subjects=5, seed=4, spacing=8.0, progress=False)
    assert not list(root.rglob(".tmp-*"))


def test_a_run_that_is_killed_while_it_converts_dicom_goes_on(cohort, tmp_path, monkeypatch):
    def killed(found, folder, jobs):
        (folder / "sub-0001" / "anat" / temporary_name()).mkdir(parents=True, exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("cortexgen.commands.preprocess.convert_dicom", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(["preprocess", str(cohort), str(tmp_path / "out")])


def test_what_is_read_from_the_output_folder_is_not_removed(cohort, weights, tmp_path):
    out = tmp_path / "out"
    image = next((cohort / "sub-0001" / "anat").glob("*_T1w.nii.gz"))
    run(["register", str(image), str(out), *weights])
    before = state(out)
    warped = next(out.glob("sub-0001/anat/*_desc-warped_T1w.nii.gz"))
    with pytest.raises(UserError, match=r"lies in .*out, which is written to"):
        run(["register", str(warped), str(out), *weights])
    assert state(out) == before


def test_an_output_folder_that_cannot_be_followed_or_a_table_that_is_a_folder(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(UserError, match=r"loop: cannot be followed"):
        claim(loop, lambda root: False)
    (tmp_path / "out" / "participants.tsv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"participants.tsv: .*folder"):
        claim(tmp_path / "out", lambda root: True, tables={"participants.tsv": ["participant_id"]})


def test_a_file_where_a_folder_is_needed_is_one_line(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["evaluate", str(cohort), f"a={cohort}", str(out), *QUICK]
    run(call)
    shutil.rmtree(out / "tables")
    (out / "tables").write_text("mine")
    with pytest.raises(SystemExit):
        main(call)
    assert "tables: File exists" in capsys.readouterr().err
