"""A slab's field on the whole image, through the written files and SimpleITK."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.io import Grid, read_field, read_volume, write_volume
from cortexgen.io.bids import sidecar
from cortexgen.registration.whole import continued, in_whole

SLAB = (8, 16, 16)


@pytest.fixture(scope="module")
def slab(cohort, verb, tmp_path_factory):
    """What a barely trained paper preset predicts for a slab at 8 mm, moved by a few refinement steps: files of one."""
    run_folder, out = tmp_path_factory.mktemp("slab") / "run", tmp_path_factory.mktemp("slab") / "fields"
    where = ("--data.root", cohort, "--data.crop", list(SLAB), "--trainer.default_root_dir", run_folder)
    verb("fit", "paper/register.yaml", *where)
    options = ("--data.whole", "true", "--model.refine", 10, "--model.refine_lr", 0.3)
    verb("predict", "paper/register.yaml", *where, "--ckpt_path", "last", "--output", out, *options)
    scan, source = read_cohort(out, "*_desc-whole_T1w.nii*")[2], read_cohort(cohort)[2]
    (part,) = scan.image.parent.glob("*_to-T1w_mode-image_xfm.nii.gz")
    return scan.image, part, part.with_name(part.name.replace("_xfm", "_desc-whole_xfm")), source.image


def test_the_whole_field_is_the_slabs_inside_and_fades_to_nothing(slab):
    _, part, whole, image = slab
    (field, grid), (small, box) = read_field(whole), read_field(part)
    assert grid.matches(read_volume(image)[1]) and box.matches(grid.window(SLAB))
    low = np.rint(np.linalg.inv(grid.affine) @ box.affine[:, 3])[:3].astype(int)
    here = (slice(None), *(slice(a, a + n) for a, n in zip(low, SLAB, strict=True)))
    assert small.abs().max() > 0.1
    torch.testing.assert_close(field[here], small, atol=1e-4, rtol=0)

    def beyond(reach):
        """The field without what lies so many voxels of 8 mm around the slab."""
        far = field.clone()
        far[(slice(None), *(slice(max(0, a - reach), a + n + reach) for a, n in zip(low, SLAB, strict=True)))] = 0
        return far.abs().max()

    assert beyond(2) < 1e-4 and 0.1 * small.abs().max() < beyond(0)  # it fades over 16 mm
    rings = [field[:, low[0] - k, low[1] : low[1] + SLAB[1], low[2] : low[2] + SLAB[2]].abs().mean() for k in (0, 1, 2)]
    assert rings[0] > 1.2 * rings[1] > 1.5 * rings[2] > 0.1 * rings[0]
    described = json.loads(sidecar(whole).read_text())
    assert described["SpatialReference"] == image.name and described["FoldedVoxels"] >= 0


def test_other_software_warps_the_whole_template_by_it(slab, tmp_path):
    warped, _, whole, image = slab
    _, grid = read_volume(image)
    write_volume(tmp_path / "template.nii.gz", load_template().to(grid).image, grid)
    moving, fixed = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (tmp_path / "template.nii.gz", image))
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(whole), sitk.sitkVectorFloat64))
    found = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(warped), sitk.sitkFloat32))
    np.testing.assert_allclose(found, ours, atol=1e-3)
    assert np.abs(sitk.GetArrayFromImage(moving) - ours).max() > 0.1


def test_there_is_a_picture_of_it(slab):
    image = slab[0]
    assert image.with_name(image.name.replace(".nii.gz", ".png")).read_bytes().startswith(b"\x89PNG")


AFFINE = np.array([[0, 0, 2, -20], [0, 2, 0, -30], [2, 0, 0, -10], [0, 0, 0, 1.0]])
NATIVE = Grid((21, 24, 27), AFFINE)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("shape", [(8, 12, 10), (9, 13, 11), (30, 12, 10)])
def test_the_continued_grid_covers_the_whole_with_the_parts_voxels(shape, factor):
    part = NATIVE.window(shape).coarse(factor)
    whole = continued(part, NATIVE)
    place = np.linalg.inv(whole.affine) @ NATIVE.affine
    for corner in ([0, 0, 0, 1], [*np.array(NATIVE.shape) - 1, 1]):
        at = (place @ corner)[:3]
        assert (at > -1e-6).all() and (at < np.array(whole.shape) - 1 + 1e-6).all()
    offset = (np.linalg.inv(whole.affine) @ part.affine)[:3, 3]
    np.testing.assert_allclose(offset, np.rint(offset), atol=1e-9)
    np.testing.assert_allclose(whole.spacing, part.spacing)
    field = torch.randn(1, 3, *part.shape)
    out = in_whole(field, part, whole)
    a, b, c = np.rint(offset).astype(int)
    d, h, w = part.shape
    assert out.shape[2:] == whole.shape and torch.equal(out[:, :, a : a + d, b : b + h, c : c + w], field)


def test_stage_2_learns_from_the_slabs_fields(slab, verb, tmp_path):
    fields, where = slab[1].parents[2], ("--trainer.default_root_dir", tmp_path)
    cli = verb("fit", "paper/generate.yaml", "--data.root", fields, "--data.mirror", "false", *where)
    assert cli.model.net.outlet[-1].weight.detach().abs().max() > 0  # it began at zero
    velocity = next(fields.glob("*/anat/*_desc-velocity_field.nii.gz"))
    assert nib.load(velocity).shape[:3] == SLAB[::-1] and (tmp_path / "checkpoints/last.ckpt").is_file()
