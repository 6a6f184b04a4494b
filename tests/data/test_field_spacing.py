"""Stage 2 on a grid coarser than that of the fields on disk, against velocities known in millimetres."""

import gc
import json
import weakref

import numpy as np
import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.data.fields import FieldDataModule
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, write_field, write_volume
from cortexgen.io.bids import sidecar
from cortexgen.spatial import folded, integrate, mirrored

AXES = np.array([[0, 0, 2, 0], [0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]])


def grid_of(shape, origin):
    affine = AXES.copy()
    affine[:3, 3] = origin
    return Grid(shape, affine)


FINE = grid_of((41, 51, 41), (-40, -50, -30))  # symmetric about x = 0
SHIPPED = grid_of((83, 103, 83), (-82, -120, -72))  # that of stage 1 on the 2 mm template


def velocity(grid, k):
    """Waves of 50 to 90 mm that reach 4 mm, at the places of a grid: `[3, d, h, w]` in its voxels."""
    rng = np.random.default_rng(k)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"))
    x = np.einsum("ij,jdhw->idhw", grid.affine[:3, :3], index) + grid.affine[:3, 3, None, None, None]
    v = np.zeros_like(x)
    for _ in range(4):
        wave = rng.standard_normal(3)
        wave *= 2 * np.pi / rng.uniform(50, 90) / np.linalg.norm(wave)
        v += rng.uniform(-1, 1, (3, 1, 1, 1)) * np.sin(np.einsum("i,idhw->dhw", wave, x) + rng.uniform(0, 6))
    return torch.from_numpy(np.einsum("ij,jdhw->idhw", np.linalg.inv(grid.affine[:3, :3]), v)).float()


def millimetres(displacement, grid):
    turn = torch.from_numpy(grid.affine[:3, :3]).float()
    return torch.einsum("ij,jdhw->idhw", turn, displacement)


def cohort(root, grid, count=3):
    template = root / "template" / "tpl-Toy_T1w.nii.gz"
    image = grid_of(tuple(2 * n // 4 for n in grid.shape), grid.affine[:3, 3])
    write_volume(template, torch.rand(1, *image.shape, generator=torch.Generator().manual_seed(0)), image)
    info = {"Template": "Toy", "TemplateHash": load_template(template).hash, "IntegrationSteps": 7}
    for k in range(count):
        path = root / f"sub-{k:02d}" / "anat" / f"sub-{k:02d}_desc-velocity_field.nii.gz"
        write_field(path, velocity(grid, k), grid)
        sidecar(path).write_text(json.dumps(info | {"ImageGrid": image.to_dict()}))
    return root


def ready(root, spacing, **options):
    template = str(root / "template" / "tpl-Toy_T1w.nii.gz")
    data = FieldDataModule(root, template, spacing=spacing, val_subjects=["00"], **options)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return cohort(tmp_path_factory.mktemp("fields"), FINE)


def test_the_coarse_flow_is_the_fine_one_to_a_tenth_of_a_millimetre(root):
    data = ready(root, 4.0)
    assert data.grid.matches(FINE.coarse(2)) and data.grid.shape == (21, 26, 21)
    for scan in data.scans:
        fine = velocity(FINE, int(scan.subject[-2:]))
        for inverse in (False, True):
            flow = millimetres(integrate(fine[None], 7, inverse)[0], FINE)[:, ::2, ::2, ::2]
            found = integrate(data.velocity_of(scan)[None], 7, inverse)
            error = (millimetres(found[0], data.grid) - flow).norm(dim=0)
            assert flow.norm(dim=0).max() > 2 and not bool(folded(found))
            assert error[2:-2, 2:-2, 2:-2].max() < 0.1  # [1 2 1] / 4 takes 1.6 % of a wave of 50 mm
            assert error.max() < 0.2  # at the border velocities of outside are repeated
            assert error.mean() < 0.02 * flow.norm(dim=0).max()


def test_what_is_too_fine_for_the_grid_is_filtered_not_aliased(tmp_path):
    """A velocity that changes its sign from voxel to voxel is nothing on the coarse grid, not a shift."""
    root = cohort(tmp_path, FINE, 2)
    path = root / "sub-01" / "anat" / "sub-01_desc-velocity_field.nii.gz"
    sign = 1 - 2 * (torch.arange(41) % 2)
    write_field(path, velocity(FINE, 1) + 0.5 * sign.float(), FINE)
    data = ready(root, 4.0)
    assert (data.velocity_of(data.side("train")[0]) - velocity(FINE, 1)[:, ::2, ::2, ::2] / 2).abs().max() < 0.15


@pytest.mark.parametrize("spacing", [3.0, 4.0, 4.5])
def test_mirroring_a_fine_field_and_making_it_coarse_commute(tmp_path, spacing):
    root = cohort(tmp_path, FINE, 2)
    path = root / "sub-01" / "anat" / "sub-01_desc-velocity_field.nii.gz"
    coarse = ready(root, spacing)
    before = coarse.velocity_of(coarse.side("train")[0])
    write_field(path, mirrored(velocity(FINE, 1)[None])[0], FINE)
    after = ready(root, spacing).velocity_of(coarse.side("train")[0])
    torch.testing.assert_close(after, mirrored(before[None])[0], atol=1e-5, rtol=0)
    assert coarse.grid.is_symmetric() and np.allclose(coarse.grid.spacing, spacing)


def test_the_coarse_grid_is_stage_1s_own(tmp_path):
    root = cohort(tmp_path, SHIPPED, 2)
    data = ready(root, 4.0)
    assert data.grid.shape == (42, 52, 42) and data.grid.is_symmetric()
    assert np.array_equal(data.grid.affine, SHIPPED.coarse(2).affine)


def test_the_contract_says_the_coarse_grid_and_statistics_are_of_it(root, tmp_path):
    plain, coarse = (ready(root, spacing, cache_dir=tmp_path) for spacing in (None, 4.0))
    assert Grid.from_dict(plain.contract()["grid"]).matches(FINE) and ready(root, 2.0).grid is not None
    contract = coarse.contract()
    assert Grid.from_dict(contract["grid"]).matches(FINE.coarse(2))
    assert contract["image_grid"] == plain.contract()["image_grid"] and contract["integration_steps"] == 7
    assert coarse.training_fields().shape == (4, 3, 21, 26, 21)
    assert torch.equal(ready(root, 2.0).training_fields(), plain.training_fields())
    made = [data.remembered("statistics", [], lambda n=n: {"n": n})["n"] for n, data in enumerate((plain, coarse))]
    assert made == [0, 1]


def test_a_disk_cache_tells_spacings_apart(root, tmp_path):
    for spacing, shape in ((None, FINE.shape), (4.0, (21, 26, 21)), (None, FINE.shape), (8.0, (11, 13, 11))):
        data = ready(root, spacing, cache="disk", cache_dir=tmp_path)
        assert data.velocity_of(data.scans[0]).shape == (3, *shape), spacing
    assert len(list(tmp_path.glob("*.npy"))) == 9


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_fine_fields_are_held_one_at_a_time(root, tmp_path, cache, monkeypatch):
    alive: list[weakref.ref] = []

    def reading(path):
        gc.collect()
        assert not [field for field in alive if field() is not None]
        field, grid = read_field(path)
        alive.append(weakref.ref(field))
        return field, grid

    monkeypatch.setattr("cortexgen.data.fields.read_field", reading)
    ready(root, 4.0, cache=cache, cache_dir=tmp_path)
    assert len(alive) == 3


@pytest.mark.parametrize("spacing", [0.0, -4.0, float("nan"), float("inf")])
def test_a_meaningless_spacing_is_one_line(root, spacing):
    with pytest.raises(UserError, match=r"spacing: expected millimetres above 0, got"):
        ready(root, spacing)
    with pytest.raises(UserError, match="larger than the whole grid"):
        ready(root, 200.0)


def test_fields_that_are_coarser_stay_as_they_are(root):
    fine, own = ready(root, 1.0), ready(root, None)
    assert fine.grid.matches(own.grid) and fine.grid.spacing == (2.0, 2.0, 2.0)
