"""`cortexgen evaluate` as users run it."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_closing, binary_fill_holes

from cortexgen.atlas.template import load_template
from cortexgen.cli import main, run
from cortexgen.commands.evaluate import named_sets
from cortexgen.errors import UserError
from cortexgen.evaluation.reading import BrainSet
from cortexgen.io.bids import read_tsv
from cortexgen.metrics.anatomy import adjusted_effects
from cortexgen.simulation.cohort import simulate_cohort

QUICK = (
    "--labels",
    "given",
    "--features",
    "null",
    "--protocol",
    "standard",
    "--pairs",
    "4",
    "--resamples",
    "20",
    "--device",
    "cpu",
)
QUICK += ("--features", "null")  # which no test here is about


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four more simulated subjects."""
    root = tmp_path_factory.mktemp("other") / "other"
    simulate_cohort(root, subjects=4, seed=11, spacing=8.0, progress=False)
    return root


@pytest.fixture(scope="module")
def evaluated(cohort: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, one of them the real one."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    run(["evaluate", str(cohort), str(other), f"itself={cohort}", str(out), *QUICK])
    return out


def _table(out: Path, name: str) -> list[dict[str, str]]:
    with open(out / "tables" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _value(out: Path, name: str, method: str = "other", protocol: str = "standard") -> float:
    rows = [r for r in _table(out, "comparison") if (r["set"], r["name"], r["protocol"]) == (method, name, protocol)]
    return float(rows[0]["value"])


def _copied(folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out)
    return out


def _image(folder: Path, k: int = 1) -> Path:
    return sorted(folder.glob("sub-*/anat/*_T1w.nii.gz"))[k]


def _head(labels: np.ndarray) -> float:
    """Voxels that labels enclose, after a closing by one voxel (6 of 8 mm)."""
    closed = binary_closing(np.pad(labels > 0, 2))
    return float(binary_fill_holes(closed).sum())


def _problems(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["problems"])


def test_tables_in_every_format_and_a_report(evaluated: Path) -> None:
    names = {path.stem for path in (evaluated / "tables").glob("*.csv")}
    assert {"anatomy", "images", "regions", "copies", "copies_brains", "comparison"} <= names
    for name in names:
        assert all((evaluated / "tables" / f"{name}.{suffix}").is_file() for suffix in ("json", "md", "tex"))
    assert "</html>" in (evaluated / "evaluation.html").read_text(encoding="utf-8")
    record = json.loads((evaluated / "evaluation.json").read_text(encoding="utf-8"))
    assert record["brains"] == {"real": 5, "other": 4, "itself": 5}
    assert record["problems"] == {}


def test_three_processes_give_the_tables_of_one(evaluated: Path, cohort: Path, other: Path, tmp_path: Path) -> None:
    run(["evaluate", str(cohort), str(other), f"itself={cohort}", str(tmp_path), *QUICK, "--jobs", "3"])
    for table in sorted((evaluated / "tables").iterdir()):
        assert (tmp_path / "tables" / table.name).read_bytes() == table.read_bytes(), table.name


def test_numbers_are_those_of_the_files(evaluated: Path, cohort: Path, other: Path) -> None:
    sets = [[brains.read(scan) for scan in brains.scans] for brains in map(BrainSet, (cohort, other))]
    volumes, masks = [], []
    for brains in sets:
        counts = [torch.bincount(b.labels.flatten(), minlength=18) for b in brains if b.labels is not None]
        volumes.append(torch.stack(counts).double()[:, 1:] * 0.512)
        masks.append([_head(b.labels[0].numpy()) for b in brains if b.labels is not None])
    rows = {r["region"]: r for r in _table(evaluated, "regions") if r["set"] == "other"}
    classes = load_template().classes[1:]
    for k, region in enumerate(classes):
        if region in rows:
            assert float(rows[region]["real_mean"]) == pytest.approx(float(volumes[0][:, k].mean()))
            assert float(rows[region]["sd"]) == pytest.approx(float(volumes[1][:, k].std()))
    icv = [torch.tensor(group, dtype=torch.float64) for group in masks]
    kept = [k for k, region in enumerate(classes) if region in rows]
    d = adjusted_effects(volumes[0][:, kept], volumes[1][:, kept], icv[0], icv[1])
    assert _value(evaluated, "mean_d") == pytest.approx(float(d.abs().nanmean()), rel=1e-5)


def test_what_the_images_are_too_small_for_is_a_note(evaluated: Path) -> None:
    notes = json.loads((evaluated / "evaluation.json").read_text(encoding="utf-8"))["notes"]
    expected = "MS-SSIM within the set (standard) not measured: MS-SSIM of 5 scales needs 32 voxels a side"
    assert any(expected in note for note in notes)


def test_a_set_against_itself_has_no_distance_and_is_all_copies(evaluated: Path) -> None:
    for name in ("mean_d", "wasserstein", "asymmetry", "position", "fid_random", "wm_d"):
        assert _value(evaluated, name, "itself") == pytest.approx(0, abs=1e-6)
        assert abs(_value(evaluated, name)) > 1e-6
    rows = {(r["set"], r["compared"]): r for r in _table(evaluated, "copies")}
    assert int(rows["itself", "images"]["copies"]) == 5
    assert int(rows["other", "images"]["copies"]) == 0
    nearest = [r for r in _table(evaluated, "copies_brains") if r["set"] == "itself"]
    assert all(r["brain"] == r["nearest"] for r in nearest)


def test_table_1_shows_published_rows_as_published(cohort: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for name in sorted(path.name for path in cohort.glob("sub-*"))[:2]:
        shutil.copytree(cohort / name, few / name)
    out = tmp_path / "out"
    options = ("--protocol", "paper", "--labels", "none", "--pairs", "1", "--resamples", "2")
    run(["evaluate", str(few), f"few={few}", str(out), *options, "--seconds", "{few: 2.5}"])
    rows = {r["method"]: r for r in _table(out, "table1")}
    assert rows["MedSyn"]["fid_resnet50_23"] == "0.057"
    assert rows["MedSyn"]["published"]
    assert rows["few"]["published"] == ""
    assert rows["few"]["seconds"] == "2.5"
    assert rows["few"]["fid_resnet50"] == ""
    assert "fid_random" not in rows["few"]  # which nobody has published
    assert 0 < float(rows["few"]["ms_ssim"]) < 1 + 1e-6
    text = (out / "tables" / "table1.md").read_text(encoding="utf-8")
    assert "published, not measured" in text
    assert "FID and its MMD were not measured" in text
    assert "untrained" not in text
    assert not (out / "tables" / "images.csv").exists()


def test_a_second_call_measures_nothing_again(
    evaluated: Path, cohort: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in (evaluated / "tables").iterdir()}
    monkeypatch.setattr("cortexgen.evaluation.run.measure_brain", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr("cortexgen.evaluation.distribution.extract_features", lambda *_: pytest.fail("again"))
    sets = [str(other), f"itself={cohort}"]
    run(["evaluate", str(cohort), *sets, str(evaluated), *QUICK])
    assert {p.name: p.read_bytes() for p in (evaluated / "tables").iterdir()} == before


def test_an_unreadable_file_and_an_unknown_label_cost_one_brain_each(
    cohort: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = _copied(other, tmp_path / "damaged")
    _image(damaged, 1).write_bytes(_image(damaged, 1).read_bytes()[:1000])
    labels = sorted(damaged.glob("sub-*/anat/*_dseg.nii.gz"))[2]
    image = nib.load(labels)
    array = np.asarray(image.dataobj).copy()
    array[array == 3] = 77
    nib.save(nib.Nifti1Image(array, image.affine), labels)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as status:
        main(["evaluate", str(cohort), str(damaged), str(out), *QUICK])
    assert status.value.code == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "2 brain(s) could not be used, the others are evaluated" in message
    problems = _problems(out)
    assert any("unknown label 77" in why for why in problems.values())
    assert any(_image(damaged, 1).name in why for why in problems.values())
    rows = [r for r in _table(out, "comparison") if r["name"] == "mean_d"]
    assert (rows[0]["n_real"], rows[0]["n"], rows[0]["value"]) == ("5", "2", "")
    assert "3 or more brains" in rows[0]["note"]
    assert float(next(r for r in _table(out, "comparison") if r["name"] == "fid_random")["value"]) > 0


def test_a_set_that_cannot_be_compared_does_not_stop_the_others(
    cohort: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    for k in range(3):
        affine = np.diag([8.0, 8, 8, 1])
        affine[:3, 3] = 5000
        nib.save(nib.Nifti1Image(np.random.rand(20, 24, 20).astype(np.float32), affine), far / f"{k}.nii.gz")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as status:
        main(["evaluate", str(cohort), str(far), str(other), str(out), *QUICK])
    assert status.value.code == 1
    message = capsys.readouterr().err
    assert "far" in message
    assert "overlap by 0%" in message
    assert _value(out, "mean_d") > 0


def test_other_grids_and_ranges_are_brought_to_the_real_ones_and_said(
    cohort: Path, other: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    for k, path in enumerate(sorted(other.glob("sub-*/anat/*_T1w.nii.gz"))):
        image = nib.load(path)
        array = np.pad(np.asarray(image.dataobj), 2)
        affine = image.affine.copy()
        affine[:3, 3] -= 2 * affine[:3, :3].sum(axis=1)
        nib.save(nib.Nifti1Image((200 * array).astype(np.uint8), affine), changed / f"sub-{k}_T1w.nii.gz")
    out = tmp_path / "out"
    options = ("--protocol", "standard", "--labels", "none", "--pairs", "4", "--resamples", "20")
    run(["evaluate", str(cohort), str(changed), str(other), str(out), *options])
    notes = "\n".join(json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["notes"])
    assert "divided by their robust maximum" in notes
    assert "cut or padded" in notes
    assert _value(out, "fid_random", "changed") == pytest.approx(_value(out, "fid_random", "other"), rel=0.1)
    assert not (out / "tables" / "anatomy.csv").exists()
    with pytest.raises(UserError, match="expected \\[0, 1\\]"):
        run(["evaluate", str(cohort), str(changed), str(tmp_path / "strict"), *options, "--rescale", "false"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["REAL", "OTHER", "OUT", "--medicalnet", "nowhere.pth"], "nowhere.pth: no such file"),
        (["REAL", "OTHER", "OTHER", "OUT"], "another set is called"),
        (["REAL", "OTHER", "OUT", "--held-out", "99"], "--held_out: sub-99 not among the 5 real brains"),
        (["REAL", "OTHER", "OUT", "--real-labels", "REAL"], "give both, from one segmenter"),
        (["REAL", "OTHER", "OUT", "--pairs", "0"], "--pairs: expected 1 or more, got 0"),
        (["REAL", "OTHER", "REAL"], "is what is read; choose a new folder to write to"),
    ],
)
def test_mistakes_are_one_line(cohort: Path, other: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    places = {"REAL": str(cohort), "OTHER": str(other), "OUT": str(tmp_path / "out")}
    with pytest.raises(UserError, match=message):
        run(["evaluate", *QUICK, *(places.get(a, a) for a in arguments)])


def test_names_of_sets_can_be_drawn() -> None:
    """Pictures and tables take no name that isn't UTF-8."""
    assert named_sets(["m\udcff=a", "b"]) == {"m?": Path("a"), "b": Path("b")}


def test_sets_that_are_not_there_are_refused_before_any_work(cohort: Path, tmp_path: Path) -> None:
    """A folder that was begun would ask for the mistyped names again."""
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"^\S*nowhere: no such .*; \S*other: no such"):
        run(["evaluate", str(cohort), str(tmp_path / "nowhere"), str(tmp_path / "other"), str(out), *QUICK])
    assert not out.exists()


def test_a_folder_of_another_comparison_is_refused(evaluated: Path, other: Path) -> None:
    with pytest.raises(UserError, match="holds an evaluation with real"):
        run(["evaluate", str(other), str(other), str(evaluated), *QUICK])


def test_a_segmenters_maps_from_folders(cohort: Path, other: Path, tmp_path: Path) -> None:
    folders = []
    for root in (cohort, other):
        folder = tmp_path / f"seg-{root.name}"
        folder.mkdir()
        for path in root.glob("sub-*/anat/*_dseg.nii.gz"):
            image = nib.load(path)
            two = np.where(np.asarray(image.dataobj) == 1, 41, np.where(np.asarray(image.dataobj) > 1, 42, 0))
            nib.save(
                nib.Nifti1Image(two.astype(np.int16), image.affine), folder / path.name.replace("dseg", "synthseg")
            )
        folders.append(folder)
    table = tmp_path / "table.tsv"
    names = "41\tRight-Cerebral-White-Matter\n42\tRight-Cerebral-Cortex\n"
    table.write_text("index\tname\n0\tUnknown\n" + names, encoding="utf-8")
    out = tmp_path / "out"
    maps = ("--real-labels", str(folders[0]), "--synthetic-labels", str(folders[1]))
    options = ("--label-table", str(table), "--protocol", "standard", "--pairs", "2", "--resamples", "10")
    run(["evaluate", str(cohort), str(other), str(out), *maps, *options])
    assert {r["region"] for r in _table(out, "regions")} == {"Right-Cerebral-White-Matter", "Right-Cerebral-Cortex"}


def test_labels_by_registration_of_both_sides(cohort: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--protocol", "standard", "--pairs", "2", "--resamples", "10", "--spacing", "8")
    run(["evaluate", str(cohort), str(other), str(out), *options])
    record = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert "registered to every brain (weights" in record["labels"]
    assert {r["compared"] for r in _table(out, "copies")} == {"images", "fields"}
    known = {r["region"]: r for r in _table(out, "regions")}
    counts = [
        int((np.asarray(nib.load(path).dataobj) == 1).sum()) * 0.512 for path in cohort.glob("sub-*/anat/*_dseg.nii.gz")
    ]
    assert float(known["Cerebral-White-Matter"]["real_mean"]) == pytest.approx(np.mean(counts), rel=0.15)
    assert _value(out, "growth_sd") > 0


@pytest.mark.filterwarnings("ignore:.*stand in several cohorts")
def test_real_brains_of_several_cohorts(cohort: Path, other: Path, tmp_path: Path) -> None:
    """Those whose ids clash have names of their own, by which they are held out."""
    out = tmp_path / "out"
    roots = f"[{other},{cohort}]"
    run(
        ["evaluate", roots, str(other), str(out), *QUICK, "--held_out", "cohort0001,0005", "--random-features", "false"]
    )
    record = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert record["brains"]["real"] == 9 and record["real"] == f"{cohort} and {other}"
    assert record["options"]["held_out"] == ["sub-0005", "sub-cohort0001"]
    table = _copied(other, tmp_path / "third") / "dseg.tsv"
    table.write_text(table.read_text().replace("Hippocampus", "elsewhere"))
    with pytest.raises(
        UserError, match=r"third/dseg.tsv: names other classes than .*cohort/dseg.tsv; give --label_table"
    ):
        run(["evaluate", f"[{tmp_path / 'third'},{cohort}]", str(other), str(tmp_path / "no"), *QUICK])


@pytest.mark.filterwarnings("ignore:.*stand in several cohorts")
def test_registrations_of_several_cohorts(
    cohort: Path, other: Path, registered: tuple[Path, Path], tmp_path: Path
) -> None:
    """`register` and `evaluate` call subjects alike, whatever the order of the folders, and find the same Dice."""
    weights = str(registered[0] / "checkpoints" / "last.ckpt")
    for root in (cohort, other):
        (tmp_path / root.name).mkdir()
        (tmp_path / root.name / "dseg.tsv").symlink_to(root / "dseg.tsv")
        for name in ("sub-0001", "sub-0002"):
            (tmp_path / root.name / name).symlink_to(root / name)
    a, b = tmp_path / "cohort", tmp_path / "other"
    run(["register", f"[{b},{a}]", str(tmp_path / "out"), "--checkpoint", weights])
    rows = {row["participant_id"]: row for row in read_tsv(tmp_path / "out" / "registration.tsv")}
    assert {name: row["cohort"] for name, row in rows.items()} == {
        f"sub-{root}000{k}": root for root in ("cohort", "other") for k in (1, 2)
    }
    run(["evaluate", "--registration", f"[{a},{b}]", f"ours={tmp_path / 'out'}", str(tmp_path / "evaluated")])
    measured = [r for r in _table(tmp_path / "evaluated", "registration_subjects") if r["method"] == "ours"]
    found = {row["participant_id"]: float(row["dice"]) for row in measured}
    assert found == pytest.approx({name: row["dice"] for name, row in rows.items()}, abs=1e-3)


def test_the_texture_of_a_set_is_that_of_its_images(evaluated: Path) -> None:
    assert _value(evaluated, "spectrum", "itself") == _value(evaluated, "edge", "itself") == 0
    assert _value(evaluated, "gradients", "itself") == 1 and _value(evaluated, "intensities", "itself") == 0
    assert _value(evaluated, "spectrum") > 0 and _value(evaluated, "intensities") > 0
    rows = _table(evaluated, "texture")
    assert {row["curve"] for row in rows} >= {"power", "WM", "Cortical-GM", "edge"}
    assert all(float(row["mean"]) == pytest.approx(float(row["real"])) for row in rows if row["set"] == "itself")
    assert "How images look" in (evaluated / "evaluation.html").read_text(encoding="utf-8")
