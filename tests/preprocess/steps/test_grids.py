import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cortexgen.errors import UserError
from cortexgen.io import Grid, write_volume
from cortexgen.io.itk import write_affine
from cortexgen.preprocess import Crop, Resample, Subject
from cortexgen.spatial import resample


def subject_of(native, template):
    subject = Subject(native.image.clone(), native.grid, template, "sub-01_T1w.nii.gz")
    subject.keep(native.image > 0)
    return subject


@pytest.mark.parametrize("spacing", [2.0, 3.0])
def test_resampling_is_what_itk_does_with_the_file_of_the_affine(native, template, tmp_path, spacing):
    subject = subject_of(native, template)
    scale = np.diag([0.9, 0.9, 0.9, 1.0])  # no direction gets coarser, so nothing is smoothed
    subject.affine = native.affine @ scale
    before, grid = subject.image, subject.grid
    Resample(spacing)(subject)
    write_volume(tmp_path / "native.nii", before, grid)
    write_volume(tmp_path / "ours.nii", subject.image, subject.grid)
    write_affine(tmp_path / "xfm.txt", subject.affine)
    moving, ours = (sitk.ReadImage(str(tmp_path / name), sitk.sitkFloat32) for name in ("native.nii", "ours.nii"))
    theirs = sitk.Resample(moving, ours, sitk.ReadTransform(str(tmp_path / "xfm.txt")), sitk.sitkLinear, 0.0)
    difference = np.abs(sitk.GetArrayFromImage(theirs) - sitk.GetArrayFromImage(ours))
    assert sitk.GetArrayFromImage(ours).max() > 900 and np.quantile(difference, 0.9999) < 1.0
    assert subject.grid.spacing == pytest.approx((spacing,) * 3) and subject.resampled
    assert torch.equal(subject.native[0], native.image > 0) and subject.native[1] is grid


def test_a_shape_puts_the_template_in_its_middle(template):
    subject = Subject(template.image, template.grid, template, "scan", mask=template.mask)
    Resample(3.0, [80, 84, 76])(subject)
    assert subject.grid.shape == (80, 84, 76)
    middle = subject.grid.affine @ [39.5, 41.5, 37.5, 1]
    centre = template.grid.affine @ [*((np.array(template.grid.shape) - 1) / 2), 1]
    assert np.abs(middle - centre).max() <= 1.5  # half a voxel, as even and odd sizes have it
    assert float(subject.image.sum()) == pytest.approx(float((template.image * template.mask).sum()), rel=1e-4)


def test_a_brain_elsewhere_is_refused(template):
    far = Grid(template.grid.shape, nib.affines.from_matvec(np.eye(3), [1000, 0, 0]) @ template.grid.affine)
    subject = Subject(template.image, far, template, "scan", mask=template.mask)
    with pytest.raises(UserError, match="scan: none of its brain lies in the field of view"):
        Resample(3.0)(subject)


@pytest.mark.parametrize("shape", [[32, 40, 40], [90, 40, 101], "brain"])
def test_a_crop_keeps_values_where_they_are(template, shape):
    subject = Subject(template.image, template.grid, template, "scan", mask=template.mask)
    Crop(shape)(subject)
    assert subject.image.shape == subject.mask.shape == (1, *subject.grid.shape)
    if shape == "brain":
        assert int(subject.mask.sum()) == int(template.mask.sum())
        assert subject.mask.numel() < template.mask.numel()
    else:
        assert list(subject.grid.shape) == shape
    new, old = subject.grid, template.grid
    expected = resample(template.image[None], old.torch_affine, new.shape, new.torch_affine, mode="nearest")[0]
    assert torch.equal(subject.image, expected)
