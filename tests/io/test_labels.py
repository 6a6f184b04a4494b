import numpy as np
import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume, write_volume
from cortexgen.io.labels import check_labels, label_type

GRID = Grid((12, 10, 11), np.array([[0, 0, 4, -20], [0, 4, 0, -20], [4, 0, 0, -12], [0, 0, 0, 1.0]]))


@pytest.fixture(scope="module")
def brain():
    template = load_template()
    return template.to(template.grid.at_spacing(4.0))


@pytest.mark.parametrize("levels", [255, 4095])
def test_an_image_of_whole_numbers_is_no_label_map(brain, levels, tmp_path):
    image = (brain.image * levels + torch.randn(brain.image.shape)).round().clamp(min=0) * (brain.image > 0)
    write_volume(tmp_path / "t1.nii.gz", image, brain.grid, np.int16)
    with pytest.raises(UserError, match=r"t1\.nii\.gz: \d+ different values .* this is an image, expected a label map"):
        read_volume(tmp_path / "t1.nii.gz", labels=True)


@pytest.mark.parametrize("spacing", [4.0, 8.0])
def test_a_thousand_small_parcels_are_a_label_map(brain, spacing):
    """Slabs of the cortex, 7 mm thick each way: more numbers than images of 8 bits have."""
    at = brain.to(brain.grid.at_spacing(spacing))
    world = np.indices(at.grid.shape) * spacing // (7 if spacing < 7 else 16)
    parcels = np.ravel_multi_index(world.astype(int), (40, 40, 40), mode="clip") + 1
    labels = np.where(at.labels[0] == 2, parcels, 0)
    assert len(np.unique(labels)) > 300
    check_labels(labels, "dseg.nii.gz")


@pytest.mark.parametrize("largest, kind", [(255, np.uint8), (256, np.int16), (32767, np.int16), (32768, np.int32),
                                           (2**31 - 1, np.int32), (2**31, np.uint32)])  # fmt: skip
def test_numbers_are_kept(largest, kind, tmp_path):
    assert label_type(largest) is kind
    labels = torch.zeros(1, *GRID.shape, dtype=torch.int64)
    labels[0, 3:6], labels[0, 6:] = 3, largest
    write_volume(tmp_path / "dseg.nii.gz", labels, GRID, kind)
    assert torch.equal(read_volume(tmp_path / "dseg.nii.gz", labels=True)[0], labels)


BAD = [(0.5, "fractions"), (1e12, "found label 1000000000000"), (0, "every voxel is 0")]


@pytest.mark.parametrize("value, reason", BAD)
def test_fractions_huge_numbers_and_nothing_are_refused(value, reason):
    array = np.zeros((4, 4, 4))
    array[1] = value
    with pytest.raises(UserError, match=reason):
        check_labels(array, "dseg.nii.gz")
