import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.preprocess import Align, Subject


def subject_of(native, template):
    subject = Subject(native.image.clone(), native.grid, template, "sub-01_T1w.nii.gz")
    subject.keep(native.image > 0)
    return subject


def test_a_known_rotation_scale_shear_and_shift_come_back(native, template):
    subject = subject_of(native, template)
    Align()(subject)
    points = apply_affine(template.grid.affine, torch.nonzero(template.mask[0]).numpy()[::5])
    errors = np.linalg.norm(apply_affine(subject.affine, points) - apply_affine(native.affine, points), axis=1)
    assert errors.max() < 1.0
    found, true = (polar(a[:3, :3])[0] for a in (subject.affine, native.affine))
    assert np.degrees(np.arccos((np.trace(found.T @ true) - 1) / 2)) < 1.0
    scales = [subject.measures[f"scale_{k}"] for k in (1, 2, 3)]
    assert scales == pytest.approx(np.linalg.svd(native.affine[:3, :3])[1].tolist(), abs=0.01)
    assert subject.measures["affine"] == "found" and subject.measures["overlap"] > 0.95 and not subject.flags


def test_what_lies_in_template_space_stays_there_unless_it_had_a_skull(template):
    for stripped, affine in (("given", "identity"), ("deepbet", "found")):
        subject = Subject(template.image, template.grid, template, "scan", mask=template.mask)
        subject.measures["stripped"] = stripped
        Align()(subject)
        assert subject.measures["affine"] == affine
        assert np.allclose(subject.affine, np.eye(4), atol=0 if affine == "identity" else 0.3)


@pytest.mark.parametrize("usual", [0.92, 0.999])
def test_an_overlap_that_is_less_than_usual_is_flagged(template, degraded, monkeypatch, usual):
    """A low correlation isn't: old age lowers it."""
    monkeypatch.setattr("cortexgen.preprocess.steps.align.USUAL", (usual, 0.0))
    image = degraded(template.image, template, 0.985, 0.4)
    subject = Subject(image, template.grid, template, "scan", mask=image > 0)
    Align("never")(subject)
    assert subject.measures["correlation"] == pytest.approx(0.4, abs=0.03)
    assert bool(subject.flags) == (subject.measures["overlap"] < usual)
    assert all("overlap" in flag for flag in subject.flags)


def test_a_small_turn_is_flagged(template):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("x", 4.2, degrees=True).as_matrix()
    grid = Grid(template.grid.shape, turn @ template.grid.affine)
    subject = Subject(template.image, grid, template, "scan", mask=template.mask)
    Align("never")(subject)
    assert -0.02 < subject.measures["lead"] < 0 and "turned by 8 degrees" in subject.flags[0]


def test_an_affine_that_failed_is_refused_with_its_numbers(native, template):
    upside_down = Subject(native.image.flip(1), native.grid, template, "scan", mask=native.image.flip(1) > 0)
    with pytest.raises(UserError, match=r"scan: its affine to MNI152NLin2009aSym failed: .*\d\.\d\d"):
        Align()(upside_down)
