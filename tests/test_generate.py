"""`cortexgen generate`: from a weights file to a cohort."""

import base64
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest
import torch

from cortexgen.cli import run
from cortexgen.data.fields import FieldDataModule
from cortexgen.errors import UserError
from cortexgen.generation.deformation_model import StatisticalDeformationModel
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import read_tsv
from cortexgen.modules import FieldDiffusionModule
from cortexgen.spatial import resample, warp
from cortexgen.weights import load, load_checkpoint, load_generator, save_weights


@pytest.fixture(scope="session")
def pca(registered):
    data = FieldDataModule(registered[1])
    data.setup("fit")
    return data, StatisticalDeformationModel(data, ("age", "brain_volume_ml"))


def generate(weights, out, *args, page="false"):
    options = ["--checkpoint", str(weights), "--steps", "2", "--resolution", "8", "--page", page]
    run(["generate", str(out), *options, *map(str, args)])
    return out


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_cohort_is_complete_and_consistent(weights, tmp_path):
    out = generate(weights, tmp_path / "out", "--num_samples", 2, "--age", 40, "--sex", "F", "--save_fields", "true")
    people = read_tsv(out / "participants.tsv")
    assert [(row["age"], row["sex"]) for row in people] == [(40, "F")] * 2
    name = out / "sub-synth0002" / "anat"
    image, grid = read_volume(name / "sub-synth0002_T1w.nii.gz")
    labels, label_grid = read_volume(name / "sub-synth0002_dseg.nii.gz", labels=True)
    field, field_grid = read_field(name / "sub-synth0002_from-MNI152NLin2009aSym_to-T1w_mode-image_xfm.nii.gz")
    assert grid.matches(label_grid) and grid.matches(field_grid) and np.allclose(grid.spacing, 8)
    assert float(image.min()) >= 0 and float(image.max()) > 0.5
    volumes = read_tsv(out / "volumes.tsv")[1]
    for k, value in enumerate([v for key, v in volumes.items() if key != "participant_id"], start=1):
        counted = float((labels == k).sum()) * 0.512
        assert counted == pytest.approx(value, abs=0.35 * value + 4)  # voxels of 8 mm against soft volumes
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["samples"] == 2 and manifest["options"]["conditions"] == {"age": 40, "sex": "F"}
    assert (name / "sub-synth0002_space-MNI152NLin2009aSym_desc-velocity_field.nii.gz").is_file()
    import SimpleITK as sitk

    transform = sitk.DisplacementFieldTransform(
        sitk.ReadImage(
            str(name / "sub-synth0002_from-MNI152NLin2009aSym_to-T1w_mode-image_xfm.nii.gz"), sitk.sitkVectorFloat64
        )
    )
    point = nib.affines.apply_affine(grid.affine, [7, 7, 7])
    moved = np.array(transform.TransformPoint((point * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    expected = nib.affines.apply_affine(grid.affine, np.array([7, 7, 7]) + field[:, 7, 7, 7].numpy())
    assert np.allclose(moved, expected, atol=1e-3)


def test_a_cohort_is_a_bids_data_set(weights, tmp_path, bids_errors):
    out = generate(weights, tmp_path / "out", "--num_samples", 1, "--save_fields", "true")
    assert bids_errors(out) == []
    assert len(list(out.glob("dseg*"))) == 5
    (out / "notes.tsv").write_text("a\tb\n1\t2\n")
    assert [error.split()[0] for error in bids_errors(out)] == ["NOT_INCLUDED"]


def test_page_of_a_cohort_is_whole_however_it_came_about(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("cortexgen.pages.generated.MOST", 2)
    out = generate(weights, tmp_path / "out", "--num_samples", 1, page="true")
    generate(weights, out, "--num_samples", 3, page="true")
    at_once = generate(weights, tmp_path / "at_once", "--num_samples", 3, page="true")
    text = (out / "generated.html").read_text(encoding="utf-8")
    assert text == (at_once / "generated.html").read_text(encoding="utf-8")
    assert [text.count(f">sub-synth000{k}</option>") for k in (1, 2, 3)] == [2, 2, 0]
    shown = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])
    names, present = ["", *[*read_tsv(out / "volumes.tsv")[0]][1:]], set()
    for brain, name in zip(shown["brains"], ("sub-synth0001", "sub-synth0002"), strict=True):
        image = nib.load(out / name / "anat" / f"{name}_T1w.nii.gz").get_fdata()
        small = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(brain["image"])))
        assert {"labels", "growth"} < brain.keys() and brain["name"] == name
        labels = nib.load(out / name / "anat" / f"{name}_dseg.nii.gz").get_fdata()
        present |= {names[int(k)] for k in np.unique(labels)}
        assert small.get_fdata().sum() == pytest.approx(image.clip(0, np.quantile(image, 0.999)).sum(), rel=0.02)
    assert {*shown["classes"]["labels"]} == present
    assert all(f'<th scope="row">{name}</th>' in text for name in ("sub-synth0001", "sub-synth0003"))


def test_page_in_a_browser(weights, tmp_path, look):
    look(generate(weights, tmp_path / "out", "--num_samples", 2, page="true") / "generated.html")


def test_more_samples_join_the_cohort_and_another_run_is_refused(weights, tmp_path):
    out = generate(weights, tmp_path / "out", "--num_samples", 1)
    before = content(out / "sub-synth0001")
    generate(weights, out, "--num_samples", 2)
    assert content(out / "sub-synth0001") == before
    at_once = generate(weights, tmp_path / "at_once", "--num_samples", 2)
    assert content(at_once / "sub-synth0002") == content(out / "sub-synth0002")
    assert (at_once / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="holds another run, with sample_seed 0; this one has 5"):
        generate(weights, out, "--num_samples", 2, "--seed", 5)


def test_a_cohort_of_which_no_brain_was_drawn_goes_on_when_called_again(weights, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FieldGenerator, "_brain", lambda *_: "nothing")
        with pytest.raises(UserError, match=r"^2 of 2 failed: sample 1: 11 draws failed the checks"):
            generate(weights, tmp_path / "out", "--num_samples", 2)
    out = generate(weights, tmp_path / "out", "--num_samples", 2)
    assert len(read_tsv(out / "participants.tsv")) == 2
    for args, message in ((("--jobs", "0"), "--jobs: expected 1 or more"), (("--generator", "x"), "there is no 'x'")):
        with pytest.raises(UserError, match=message):
            generate(weights, tmp_path / "no", *args)
    assert not (tmp_path / "no").exists()


def files(folder):
    """What a cohort consists of; the description holds the command, and a kill leaves what it was writing."""
    left_out = ("dataset_description.json", ".tmp-")
    return {k: v for k, v in content(folder).items() if not k.name.startswith(left_out)}


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def integrations(monkeypatch):
    """How many fields were integrated so far, wherever that was asked for; a composition counts 1 / 4."""
    module = sys.modules["cortexgen.spatial.integrate"]  # the package's attribute of that name is the function
    counted, compose = [], module.compose
    monkeypatch.setattr(module, "compose", lambda a, b: counted.append(len(a)) or compose(a, b))
    return lambda: sum(counted) / 4


def test_a_brain_takes_two_integrations(weights, pca, tmp_path, integrations):
    """exp(v) and exp(-v), with all its fields and checks; and those of each round of unfolding."""
    out = generate(weights, tmp_path / "out", "--num_samples", 2, "--save_fields")
    records = json.loads((out / "manifest.json").read_text())["records"]
    assert integrations() == sum(2 + 2 * r.get("unfolding_rounds", 0) + 2 * len(r["rejected"]) for r in records)
    before, module = integrations(), pca[1]
    module.native_size, module.spacing, module.max_redraws = True, 8.0, 50
    sample = FieldGenerator(module).draw(0)
    module.native_size, module.spacing = False, None
    assert sample.field.growth != 1
    assert integrations() - before == 2 + 2 * sample.field.unfolding + 2 * len(sample.rejected)


def test_one_brain_0_whoever_draws_it(trained_generator, registered, weights, verb, tmp_path):
    """With the steps and the correction of the training's configuration, which nobody repeats."""
    import cortexgen

    checkpoint = trained_generator / "checkpoints" / "last.ckpt"
    module = FieldDiffusionModule.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    assert (module.steps, module.correction) == (2, 0.5)
    velocity = module.sample(0)
    module.steps = 3
    assert not torch.equal(module.sample(0), velocity)
    again = load_generator(checkpoint)
    again.contract["log_volume_std"] *= 3
    save_weights(tmp_path / "exported.safetensors", again)
    exported = load_generator(tmp_path / "exported.safetensors")
    assert exported.steps == 2
    brain = cortexgen.generate(1, resolution=8.0, checkpoint=checkpoint)[0]
    assert brain.field.unfolding == 0 and not brain.rejected
    assert torch.equal(again.sample(0), velocity) and torch.equal(brain.field.velocity, velocity)
    assert torch.allclose(exported.sample(0), velocity, atol=0.02)  # its statistics have three digits
    run(["generate", str(tmp_path / "command"), "--checkpoint", str(checkpoint), "--num_samples", "1", "--save_fields"])
    where = ("--data.root", registered[1], "--trainer.default_root_dir", trained_generator, "--ckpt_path", "last")
    options = ("--model.num_samples", 1, "--model.save_fields", "true", "--output", tmp_path / "verb")
    verb("predict", "generate.yaml", *where, *options)
    fields = [next((tmp_path / name).rglob("*_desc-velocity_field.nii.gz")) for name in ("command", "verb")]
    assert fields[0].read_bytes() == fields[1].read_bytes()
    assert torch.allclose(read_field(fields[0])[0], velocity, atol=1e-5)


def test_arithmetic_is_recorded_and_not_mixed(weights, tmp_path, monkeypatch):
    from cortexgen.runner.precision import native_bfloat16

    out = generate(weights, tmp_path / "out", "--num_samples", 1)
    manifest = json.loads((out / "manifest.json").read_text())
    options = manifest["options"]
    assert options["precision"] == ("bf16" if native_bfloat16() else "32")
    assert (options["device"], options["threads"], options["micro_batch"]) == ("cpu", 1, 1)
    assert len(manifest["environments"]) == 1 and torch.__version__ in manifest["environments"][0]
    with pytest.raises(UserError, match="holds another run, with micro_batch 1; this one has 2"):
        generate(weights, out, "--num_samples", 2, "--micro_batch", 2)
    with monkeypatch.context() as patch:
        patch.setattr("cortexgen.runner.precision.native_bfloat16", lambda: not native_bfloat16())
        with pytest.raises(UserError, match="holds another run, with precision"):
            generate(weights, out, "--num_samples", 2)
    record = next(out.glob("sub-synth0001/anat/*_metrics.json"))
    record.write_text(record.read_text().replace(torch.__version__, "1.0"))
    with pytest.warns(UserWarning, match=r"made with torch 1\.0, .*; this is torch"):
        generate(weights, out, "--num_samples", 2)
    assert len(json.loads((out / "manifest.json").read_text())["environments"]) == 2
    description = out / "dataset_description.json"
    content = json.loads(description.read_text())
    for name in ("precision", "device", "threads", "micro_batch"):
        del content["GeneratedBy"][0]["Parameters"][name]
    description.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"begun by an earlier version \(0.1.0\), which did not record its device"):
        generate(weights, out, "--num_samples", 2)


def test_the_deformation_model_is_drawn_in_full_precision(pca):
    _, module = pca
    expected = module.sample(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.sample(0), expected)


SHIPPED = ("--steps", "1", "--resolution", "8", "--num_samples", "3")  # large enough that threads share its sums


def test_threads_do_not_change_a_byte(tmp_path):
    """Of images, labels, fields and volumes; nor does it matter how many brains are drawn side by side."""
    cohorts = []
    for count in (1, 2, 3):
        with threads(count):
            run(["generate", str(tmp_path / str(count)), *SHIPPED, "--save_fields", "--native_size"])
            assert torch.get_num_threads() == count
        cohorts.append(files(tmp_path / str(count)))
    assert cohorts[0] == cohorts[1] == cohorts[2]


def test_two_processes_and_a_killed_one_give_the_same_bytes(tmp_path):
    """One process with one thread; two with three each; one with two, killed, then with as many as there are cores.

    Brains are drawn two by two; the fourth is nobody's.
    """
    command, bare = [sys.executable, "-m", "cortexgen", "generate"], dict(os.environ)
    bare.pop("OMP_NUM_THREADS", None)
    options = (*SHIPPED, "--micro_batch", "2")
    with threads(1):
        run(["generate", str(tmp_path / "whole"), *options])
    two = [*command, str(tmp_path / "two"), *options, "--devices", "2"]
    subprocess.run(two, check=True, capture_output=True, env=bare | {"OMP_NUM_THREADS": "3"})
    killed = [*command, str(tmp_path / "killed"), *options]
    process = subprocess.Popen(
        killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=bare | {"OMP_NUM_THREADS": "2"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("killed/sub-synth*/anat/*_metrics.json")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").is_file()
    subprocess.run(killed, check=True, capture_output=True, env=bare)
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "two") == whole
    assert files(tmp_path / "killed") == whole


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--num_samples", "0"], "--num_samples: expected 1 or more, got 0"),
        (["--num_samples", "-3"], "--num_samples: expected 1 or more"),
        (["--steps", "0"], "--steps: expected 1 or more"),
        (["--resolution", "-1"], "spacing: expected a number above zero"),
        (["--sex", "X"], "sex: 'X' is none of F, M"),
        (["--conditions", "{height: 3}"], "'height' is not a covariate of these weights"),
        (["--native_size", "true"], "native_size: the weights know no brain_volume_ml"),
        (["--labels", "absent.nii.gz"], "absent.nii.gz"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(weights, tmp_path, args, message):
    with pytest.raises(UserError, match=message):
        generate(weights, tmp_path / "out", *args)
    assert not (tmp_path / "out").exists()


def test_an_age_outside_the_range_is_a_warning(weights, tmp_path):
    with pytest.warns(UserWarning, match="age 130 lies outside the cohort's range"):
        generate(weights, tmp_path / "out", "--age", 130, "--num_samples", 1)


def test_weights_of_stage_1_are_refused(registered, tmp_path):
    with pytest.raises(UserError, match="weights of stage 1"):
        run(["generate", str(tmp_path / "out"), "--checkpoint", str(registered[0] / "checkpoints" / "last.ckpt")])


def test_another_template_is_refused(weights, cohort, tmp_path):
    image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    with pytest.raises(UserError, match="the weights' template has hash"):
        generate(weights, tmp_path / "out", "--template", image)


def test_the_statistics_survive_the_file(weights, trained_generator):
    module = load_checkpoint(trained_generator / "checkpoints" / "last.ckpt")[0].eval()
    again = load(weights)
    assert torch.allclose(again.contract["mean"], module.contract["mean"], rtol=2e-3, atol=1e-5)
    assert again.contract["covariates"] == module.contract["covariates"]
    again.steps = module.steps = 2
    assert torch.allclose(again.sample(0), module.sample(0), atol=0.02)


def test_the_deformation_model_has_the_cohorts_covariance(pca):
    """Along any direction, the variance of 2000 draws is that of the training fields."""
    data, module = pca
    fields = data.training_fields().flatten(1)
    torch.manual_seed(0)
    direction = fields.T @ torch.randn(len(fields))
    real = ((fields - fields.mean(dim=0)) @ direction).square().mean()
    draws = torch.stack([module.sample(k).flatten() @ direction for k in range(2000)])
    assert float(draws.var() / real) == pytest.approx(1, abs=0.12)
    assert float((draws.mean() - fields.mean(dim=0) @ direction) / real.sqrt()) == pytest.approx(0, abs=0.1)


def test_conditions_shift_the_mean_by_the_regression(pca):
    """Same random numbers, two ages: the difference is the least-squares slope, with what age says of brain volume."""
    data, module = pca
    scans = data.side("train")
    ages = torch.tensor([scan.covariates["age"] for scan in scans] * 2, dtype=torch.float64)
    fields = data.training_fields().double().flatten(1)
    slope = ((ages - ages.mean())[:, None] * fields).sum(dim=0) / (ages - ages.mean()).square().sum()
    change = module.sample(0, conditions={"age": 60.0}) - module.sample(0, conditions={"age": 50.0})
    assert torch.allclose(change.double().flatten(), 10 * slope, atol=2e-3 * float(slope.abs().max()) * 10 + 1e-4)


def test_a_brain_says_whose_it_is_where_nothing_is_asked(pca, tmp_path):
    """Covariates are those of a training person each; what is asked for is as asked, the rest still a person's."""
    data, module = pca
    people = {(scan.covariates["age"], round(scan.covariates["brain_volume_ml"], 3)) for scan in data.side("train")}
    drawn = [module.person(k, 0, {}) for k in range(60)]
    found = {(row["age"], round(row["brain_volume_ml"], 3)) for row in drawn}
    assert found <= people and len(found) > 0.8 * len(people)
    assert all(module.person(k, 0, {"age": 50.0})["age"] == 50.0 for k in range(3))
    module.max_redraws, module.spacing = 50, 8.0
    brain = FieldGenerator(module).draw(3)
    module.spacing = None
    assert brain.conditions == module.person(3, len(brain.rejected), {})


def test_native_size_has_the_volume_drawn(pca):
    _, module = pca
    module.conditions, module.native_size, module.max_redraws = {"brain_volume_ml": 1300.0}, True, 50
    module.spacing = 3.0
    sampler = FieldGenerator(module)
    small = sampler.draw(0)
    module.conditions = {"brain_volume_ml": 1500.0}
    large = sampler.draw(0)
    original, grid = module.template, sampler.grid
    mask = resample(original.mask.float()[None], original.grid.torch_affine, grid.shape, grid.torch_affine)
    for sample, expected in ((small, 1300), (large, 1500)):
        measured = float(warp(mask, sample.field.displacement[None]).sum()) * grid.voxel_volume / 1000
        assert measured == pytest.approx(expected, rel=0.02)
    assert large.field.growth > small.field.growth
    module.conditions = None
    drawn = [module.with_head_size(k)["brain_volume_ml"] for k in range(300)]
    spec = module.encoder.specs["brain_volume_ml"]
    assert np.mean(drawn) == pytest.approx(spec["mean"], abs=4 * spec["std"] / 300**0.5)
    assert np.std(drawn) == pytest.approx(spec["std"], rel=0.15)
    module.spacing, module.native_size = None, False


def test_the_function_draws_what_the_command_writes(weights, tmp_path):
    import cortexgen

    out = generate(weights, tmp_path / "out", "--num_samples", 2, "--age", 40)
    brains = cortexgen.generate(2, conditions={"age": 40}, steps=2, resolution=8.0, checkpoint=weights)
    field, _ = read_field(next(out.glob("sub-synth0002/anat/*_to-T1w_*xfm.nii.gz")))
    assert torch.allclose(brains[1].field.displacement, field, atol=1e-4)
    assert brains[1].labels.shape == brains[1].image.shape == (1, *brains[1].grid.shape)
