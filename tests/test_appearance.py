"""`cortexgen generate --appearance`: what is written for each, and that labels fit the image that they come with."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cortexgen.atlas.fitting import fit_labels
from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Rendered
from cortexgen.io import read_volume
from cortexgen.io.bids import read_tsv
from cortexgen.weights.models import fields

CLASSES = load_template().classes


@pytest.fixture(scope="module")
def looks(trained_appearance):
    return trained_appearance / "checkpoints" / "last.ckpt"


def generate(weights, out, *args):
    run(["generate", str(out), "--checkpoint", str(weights), "--steps", "2", "--num_samples", "2", *map(str, args)])
    return out


@pytest.fixture(scope="module")
def learned(weights, looks, tmp_path_factory):
    out = tmp_path_factory.mktemp("learned") / "out"
    return generate(weights, out, "--appearance", looks, "--warped_labels", "--age", 40)


@pytest.fixture(scope="module")
def plain(weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "out"
    return generate(weights, out, "--appearance", "template", "--age", 40)


def volume(folder, name, labels=False):
    return read_volume(folder / "sub-synth0001" / "anat" / f"sub-synth0001_{name}.nii.gz", labels=labels)


def test_labels_fit_the_image_and_the_field_is_as_without(learned, plain):
    (image, grid), (before, _) = volume(learned, "T1w"), volume(learned, "desc-warped_dseg", labels=True)
    labels = volume(learned, "dseg", labels=True)[0]
    assert torch.equal(labels, fit_labels(image, before, CLASSES, min(grid.spacing)))
    assert torch.equal(before, volume(plain, "dseg", labels=True)[0])
    assert not torch.equal(image, volume(plain, "T1w")[0])
    for name in ("from-MNI152NLin2009aSym_to-T1w_mode-image_xfm",):
        first, second = (f / "sub-synth0001" / "anat" / f"sub-synth0001_{name}.nii.gz" for f in (learned, plain))
        assert first.read_bytes() == second.read_bytes()


def test_labels_before_they_were_fitted_are_not_taken_for_the_brains(learned):
    scan = read_cohort(learned, "*_T1w.nii*", "*_dseg.nii*")[0]
    assert scan.labels is not None and scan.labels.name == "sub-synth0001_dseg.nii.gz"
    before = read_cohort(learned, "*_T1w.nii*", "*_desc-warped_dseg.nii*")[0].labels
    assert before is not None and before.name == "sub-synth0001_desc-warped_dseg.nii.gz"


def test_volumes_are_those_of_the_written_labels(learned):
    labels, grid = volume(learned, "dseg", labels=True)
    row = read_tsv(learned / "volumes.tsv")[0]
    for k, name in list(enumerate(CLASSES))[1:]:
        assert row[name] == pytest.approx(int((labels == k).sum()) * grid.voxel_volume / 1000, rel=1e-3, abs=1e-3)


def test_a_cohort_says_what_its_appearance_is(learned, plain):
    manifest = json.loads((learned / "manifest.json").read_text())
    assert manifest["options"]["appearance"] == "learned"
    assert len(manifest["options"]["appearance_weights"]) == 64
    assert set(manifest["records"][0]["style"]) == {"white", "contrast", "fluid", "noise", "bias"}
    assert json.loads((plain / "manifest.json").read_text())["options"]["appearance"] == "template"


def test_a_folder_of_one_appearance_takes_no_other(weights, looks, learned, plain, cohort):
    for out, appearance in ((learned, ["template"]), (plain, [str(looks)]), (plain, ["donors", "--donors", cohort])):
        with pytest.raises(UserError, match="holds another run, with appearance"):
            generate(weights, out, "--age", 40, "--appearance", *appearance)


def test_an_appearance_is_told_the_covariates_that_the_field_was_drawn_with(weights):
    seen = []

    def render(shape):
        seen.append(dict(shape.conditions))
        return Rendered(shape.image, shape.labels, {})

    generator = fields(weights, appearance="template", steps=2, conditions={"age": 40.0})
    generator.appearance = SimpleNamespace(render=render)
    for k in range(4):
        rejected = len(generator.draw(k).rejected)
        assert seen[-1] == generator.source.person(k, rejected, {"age": 40.0})
    assert {row["age"] for row in seen} == {40.0}
    assert {row["sex"] for row in seen} <= {"F", "M"}


def test_processes_change_no_byte(weights, looks, learned, tmp_path):
    again = generate(weights, tmp_path / "out", "--appearance", looks, "--warped_labels", "--age", 40, "--jobs", 2)
    for path in learned.rglob("*.nii.gz"):
        assert path.read_bytes() == (again / path.relative_to(learned)).read_bytes()


def test_a_parcellation_follows_the_cortex(weights, looks, learned, tmp_path):
    from cortexgen.io import write_volume

    template = load_template()
    halves = template.labels + 20 * (template.labels > 0) * (torch.arange(template.grid.shape[2]) > 98)
    write_volume(tmp_path / "halves_dseg.nii.gz", halves, template.grid, np.uint8)
    out = generate(
        weights, tmp_path / "out", "--appearance", looks, "--age", 40, "--labels", tmp_path / "halves_dseg.nii.gz"
    )
    parcels, classes = (volume(folder, "dseg", labels=True)[0] for folder in (out, learned))
    assert int(parcels.max()) > 20
    same = parcels % 20 == classes
    assert float(same[classes > 0].float().mean()) > 0.97  # at 8 mm halves share voxels
    assert not parcels[volume(out, "T1w")[0] == 0].any()


def test_donors_keep_their_labels_and_are_said_not_to_be_private(weights, cohort, plain, tmp_path):
    out = generate(weights, tmp_path / "out", "--appearance", "donors", "--donors", cohort, "--age", 40)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["options"]["private"] is False
    names = {record["style"]["donor"] for record in manifest["records"]}
    assert names <= {path.name for path in cohort.glob("sub-*")}
    (image, _), (warped, _) = volume(out, "T1w"), volume(plain, "T1w")
    assert np.corrcoef(image.flatten(), warped.flatten())[0, 1] > 0.8
    labels, before = (volume(folder, "dseg", labels=True)[0] for folder in (out, plain))
    assert 2 * float(((labels == 1) & (before == 1)).sum()) / float((labels == 1).sum() + (before == 1).sum()) > 0.6


def test_what_does_not_fit_is_refused_in_a_line(weights, looks, cohort, tmp_path):
    def attempt(*args):
        generate(weights, tmp_path / "never", *args)

    with pytest.raises(UserError, match="make voxels of 8 x 8 x 8 mm, these are 4 x 4 x 4 mm"):
        attempt("--appearance", looks, "--resolution", 4)
    with pytest.raises(UserError, match="donors needs a cohort"):
        attempt("--appearance", "donors")
    with pytest.raises(UserError, match="only appearance donors takes them"):
        attempt("--donors", cohort)
    with pytest.raises(UserError, match="the brains are made on"):
        attempt("--appearance", "donors", "--donors", cohort, "--resolution", 4)
    with pytest.raises(UserError, match="only a learned appearance takes it, not template"):
        attempt("--appearance", "template", "--style", "{noise: 0.01}")
    with pytest.raises(UserError, match="there is no 'grain'"):
        attempt("--appearance", looks, "--style", "{grain: 0.01}")
    with pytest.raises(UserError, match="appearance needs stage 3's"):
        attempt("--appearance", weights)
    with pytest.raises(UserError, match=r"nobody in .* has labels"):
        (tmp_path / "bare" / "sub-01" / "anat").mkdir(parents=True)
        image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
        (tmp_path / "bare" / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_bytes(image.read_bytes())
        attempt("--appearance", "donors", "--donors", tmp_path / "bare")
    assert not (tmp_path / "never" / "manifest.json").exists()
