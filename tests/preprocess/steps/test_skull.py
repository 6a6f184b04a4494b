import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy import ndimage

from cortexgen.errors import UserError
from cortexgen.io import read_volume
from cortexgen.preprocess import StripSkull, Subject


def test_what_a_stripped_input_has_beside_the_brain_is_removed_and_flagged(template):
    tissue = template.labels > 0
    d, h, w = np.indices(template.grid.shape)
    world = apply_affine(template.grid.affine, np.stack([d, h, w], -1))
    neck = torch.from_numpy((np.hypot(world[..., 0], world[..., 1] + 20) < 22) & (world[..., 2] < -50))[None]
    residue = neck & ~torch.from_numpy(ndimage.binary_dilation(template.mask[0].numpy(), iterations=2))[None]
    subject = Subject(1000 * torch.where(residue, 0.7, template.image), template.grid, template, "scan")
    StripSkull()(subject)
    removed = float(residue.sum()) * template.grid.voxel_volume / 1000
    assert removed > 20 and subject.measures["stripped"] == "given"
    assert subject.measures["removed_ml"] == pytest.approx(removed, rel=0.35)
    assert "neck" in subject.flags[0] and f"{subject.measures['removed_ml']:.0f} ml" in subject.flags[0]
    assert float((residue & subject.mask).sum()) < 0.3 * float(residue.sum())
    assert float((tissue & ~subject.mask).sum()) < 1e-3 * float(tissue.sum())


@pytest.mark.parametrize(("millilitres", "flag"), [(12, None), (30, "30 ml outside"), (560, "for no brain: nothing")])
def test_so_much_beside_the_brain_is_no_residue_some_or_an_error(template, monkeypatch, millilitres, flag):
    """With the brain's outline known, instead of deepbet's."""
    brain = template.mask
    monkeypatch.setattr("cortexgen.preprocess.steps.skull._deepbet", lambda *_: brain)
    distance = torch.from_numpy(ndimage.distance_transform_edt(~brain[0].numpy()))[None]
    outside = torch.nonzero((distance > 1.8).flatten()).flatten()
    beside = outside[distance.flatten()[outside].argsort()[: round(1000 * millilitres / template.grid.voxel_volume)]]
    image = template.image * brain
    image.view(-1)[beside] = 0.6
    subject = Subject(1000 * image, template.grid, template, "scan")
    StripSkull()(subject)
    assert len(subject.flags) == (flag is not None) and all(flag in line for line in subject.flags)
    gone = flag is None or "nothing" not in flag
    assert subject.measures["removed_ml"] == pytest.approx(millilitres if gone else 0, abs=1)
    assert bool(subject.image.view(-1)[beside].any()) != gone


def test_a_real_head_loses_its_skull(real_brains, template):
    path = real_brains.parent / "colin27" / "ch2.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    subject = Subject(*read_volume(path), template, str(path))
    StripSkull()(subject)
    assert subject.measures["stripped"] == "deepbet" and "removed_ml" not in subject.measures
    volume = float(subject.mask.sum()) * subject.grid.voxel_volume / 1000
    assert 1800 < volume < 2100  # two implementations of BET give 1737 and 2010 ml
    assert not subject.image[~subject.mask].any()


def test_an_image_without_a_brain_is_refused(template):
    speck = torch.zeros(template.image.shape)
    speck[0, 30, 30, 30] = 100.0
    with pytest.raises(UserError, match=r"speck\.nii\.gz: deepbet found no brain"):
        StripSkull()(Subject(speck, template.grid, template, "speck.nii.gz"))
