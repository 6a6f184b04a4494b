"""A subject stays on its side of the split: through failures, other options, and from stage 1 to stage 2."""

import shutil
import warnings

import pytest

from cortexgen.data.fields import FieldDataModule
from cortexgen.errors import UserError
from cortexgen.io.bids import read_tsv
from cortexgen.registration import writer as registration_writer

pytestmark = pytest.mark.filterwarnings("ignore:.*(is left out|another side)")


@pytest.fixture
def stage_1(registered, verb):
    """Runs a verb of stage 1 with the run folder of `registered`."""

    def call(name, root, *options, folder=registered[0]):
        return verb(name, "register.yaml", "--data.root", root, "--trainer.default_root_dir", folder, *options)

    return call


def sides(root):
    """Side of each scan, and what was said of it."""
    rows = {row["participant_id"]: row for row in read_tsv(root / "registration.tsv")}
    return {n: row["split"] for n, row in rows.items()}, {n: row["status"] for n, row in rows.items()}


def test_a_failed_session_leaves_its_subject_where_it_is(cohort, registered, stage_1, tmp_path, monkeypatch):
    """One session is broken, another one meets a defect; both are held out."""
    before, _ = sides(registered[1])
    held_out = [name for name, side in before.items() if side != "train"]
    data = shutil.copytree(cohort, tmp_path / "in", ignore=shutil.ignore_patterns("truth"))
    for name in held_out:
        for session in ("ses-1", "ses-2"):
            shutil.copytree(data / name / "anat", data / name / session / "anat")
            for path in (data / name / session / "anat").iterdir():
                path.rename(path.with_name(path.name.replace(name, f"{name}_{session}")))
        shutil.rmtree(data / name / "anat")
    broken, unlucky = (f"{name}_ses-2" for name in held_out)
    next(data.glob(f"{held_out[0]}/ses-2/anat/*_T1w.nii.gz")).write_bytes(b"nothing")
    write = registration_writer.write_registered

    def fails(root, scan, *rest, **options):
        if scan.name == unlucky:
            raise IndexError("out\nof range")
        return write(root, scan, *rest, **options)

    monkeypatch.setattr(registration_writer, "write_registered", fails)
    with pytest.raises(UserError, match=r"2 subject\(s\) left out, the others are done"):
        stage_1("predict", data, "--ckpt_path", "last", "--output", tmp_path / "out")
    now, said = sides(tmp_path / "out")
    assert said[broken].startswith("failed: ") and said[unlucky] == "failed: IndexError: out of range"
    assert len(now) == 7 and {name.split("_")[0]: side for name, side in now.items()} == before
    fields = FieldDataModule(tmp_path / "out")
    fields.setup("fit")
    assert fields.split == before and {s.name for s in fields.side("test")} | {s.name for s in fields.side("val")} == {
        f"{name}_ses-1" for name in held_out
    }


def test_other_options_move_nobody(cohort, registered, stage_1, tmp_path):
    before, _ = sides(registered[1])
    trained = next(name for name, side in before.items() if side == "train")
    other = ("--data.val", 3, "--data.test", 0, "--data.val_subjects", f"[{trained}]", "--ckpt_path", "last")
    with pytest.warns(
        UserWarning, match=rf"another side .* when these weights were trained: .*{trained} .train, now val"
    ):
        stage_1("predict", cohort, *other, "--output", tmp_path / "out", "--data.only", "val")
    now, _ = sides(tmp_path / "out")
    assert now == {name: side for name, side in before.items() if side == "val"}
    with pytest.raises(UserError, match=rf"{trained} .train, now val.*; give the same --data.val"):
        stage_1("fit", cohort, *other, "--trainer.max_steps", 4)


def test_a_folder_of_another_split_is_refused(cohort, registered, stage_1, tmp_path):
    out = shutil.copytree(registered[1], tmp_path / "out")
    table = out / "registration.tsv"
    table.write_text(table.read_text().replace("\tval\t", "\ttrain\t"))
    before = table.read_text()
    with pytest.raises(UserError, match=r"is on the side train there, now on val; give the same --data\.val"):
        stage_1("predict", cohort, "--ckpt_path", "last", "--output", out)
    assert table.read_text() == before


def test_a_prediction_that_was_killed_has_its_split_in_its_records(registered, tmp_path):
    before, _ = sides(registered[1])
    out = shutil.copytree(registered[1], tmp_path / "out")
    (out / "registration.tsv").unlink()
    fields = FieldDataModule(out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fields.setup("fit")
    assert fields.split == before
    next(out.glob("sub-0003/anat/*_metrics.json")).unlink()
    with pytest.raises(UserError, match=r"1 of 5 subjects have no side \(sub-0003\), .*let `cortexgen predict` finish"):
        FieldDataModule(out).setup("fit")


def test_a_changed_image_is_predicted_anew_with_its_labels(cohort, registered, stage_1, tmp_path):
    data = shutil.copytree(cohort, tmp_path / "in", ignore=shutil.ignore_patterns("truth"))
    out = shutil.copytree(registered[1], tmp_path / "out")
    one, two = (next(data.glob(f"sub-000{k}/anat/*_T1w.nii.gz")) for k in (1, 2))
    shutil.copy(two, one)
    labels = next(data.glob("sub-0003/anat/*_dseg.nii.gz"))
    shutil.copy(next(data.glob("sub-0004/anat/*_dseg.nii.gz")), labels)
    with pytest.warns(UserWarning, match="registered anew"):
        stage_1("predict", data, "--ckpt_path", "last", "--output", out)
    rows, before = (
        {r["participant_id"]: r for r in read_tsv(root / "registration.tsv")} for root in (out, registered[1])
    )
    assert rows["sub-0001"]["ssim"] == rows["sub-0002"]["ssim"] == before["sub-0002"]["ssim"]
    assert (
        rows["sub-0003"]["dice"] != before["sub-0003"]["dice"]
        and rows["sub-0003"]["ssim"] == before["sub-0003"]["ssim"]
    )
    assert all(rows[f"sub-000{k}"] == before[f"sub-000{k}"] for k in (2, 4, 5))
