"""Options of `register`, and of `predict` for stage 1, that change what is written."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.io import read_volume, write_volume


def parameters(out):
    return json.loads((out / "dataset_description.json").read_text())["GeneratedBy"][0]["Parameters"]


@pytest.fixture(scope="module")
def nearest(cohort, registered, tmp_path_factory):
    """One subject registered with options that are not the default, by the command and by `predict`."""
    root = tmp_path_factory.mktemp("nearest")
    checkpoint = str(registered[0] / "checkpoints" / "last.ckpt")
    options = ["--nearest_labels", "true", "--refine", "20", "--refine_intensity", "2", "--mirror", "false"]
    image = next(cohort.glob("sub-0002/anat/*_T1w.nii.gz"))
    run(["register", str(image), str(root / "out"), "--checkpoint", checkpoint, *options])
    return root / "out"


def test_the_commands_options_reach_the_module(nearest):
    expected = {"nearest_labels": True, "refine": 20, "refine_intensity": 2.0, "mirror": False, "frames": 0}
    assert expected.items() <= parameters(nearest).items()


def test_labels_are_the_nearest(nearest, tmp_path):
    """Against SimpleITK's nearest neighbour, and its largest interpolated indicator, through the written field."""
    anat = nearest / "sub-0002" / "anat"
    written, grid = read_volume(next(anat.glob("*_desc-warped_dseg.nii.gz")), labels=True)
    template = load_template()
    template = template.to(template.grid.at_spacing(8.0))
    write_volume(tmp_path / "template.nii.gz", template.labels, template.grid, np.uint8)
    write_volume(tmp_path / "grid.nii.gz", written, grid, np.uint8)
    moving, fixed = (sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in ("template", "grid"))
    field = sitk.ReadImage(str(next(anat.glob("*_to-T1w_mode-image_xfm.nii.gz"))), sitk.sitkVectorFloat64)
    transform, ours = sitk.DisplacementFieldTransform(field), sitk.GetArrayFromImage(fixed)

    def warped(image, how):
        return sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, how, 0.0))

    expected = warped(moving, sitk.sitkNearestNeighbor)
    shares = [warped(sitk.Cast(moving == k, sitk.sitkFloat32), sitk.sitkLinear) for k in range(18)]
    other = np.argmax(shares, axis=0)
    tissue = (expected > 0) | (ours > 0)
    assert (expected == ours)[tissue].mean() > 0.98 > (other == ours)[tissue].mean()


def test_predict_writes_what_reverse_diffusion_makes(cohort, registered, verb, tmp_path):
    where = ("--data.root", cohort, "--trainer.default_root_dir", registered[0], "--ckpt_path", "last")
    verb(
        "predict", "register.yaml", *where, "--data.only", "test", "--model.synthesis", 2, "--output", tmp_path / "out"
    )
    (path,) = (tmp_path / "out").glob("sub-*/anat/*_desc-synthesis_T1w.nii.gz")
    image, _ = read_volume(path)
    assert float(image.min()) >= 0 and float(image.max()) <= 1 and float(image.std()) > 0.05
    assert torch.unique(image).numel() > 100 and path.with_name(path.name.replace(".nii.gz", ".png")).is_file()
    assert parameters(tmp_path / "out")["synthesis"] == 2
