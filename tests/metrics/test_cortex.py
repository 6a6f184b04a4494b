import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, cKDTree

from cortexgen.errors import UserError
from cortexgen.metrics.cortex import _greatest, cortical_measures

CLASSES = ("Unknown", "Cerebral-White-Matter", "Cerebral-Cortex", "Brain-Stem", "Lateral-Ventricle")
ISOTROPIC = (1.0, 1.0, 1.0)


def points(reach, spacing, offset=(0.3, 0.1, 0.45)):
    """Centres `[D, H, W, 3]` in mm of voxels of a box around 0."""
    axes = [np.arange(-math.ceil(reach / s), math.ceil(reach / s) + 1) for s in spacing]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) * np.array(spacing) + np.array(offset) * spacing


def shell(inner, outer, spacing):
    radius = np.linalg.norm(points(outer + 2 * max(spacing), spacing), axis=-1)
    return torch.from_numpy(np.where(radius < inner, 1, np.where(radius < outer, 2, 0)))[None]


def folded(spacing):
    """White matter whose radius varies with the azimuth, and grey matter 3 mm further along the radius."""
    x = points(45, spacing)
    radius = np.linalg.norm(x, axis=-1)
    wave = 32 + 6 * np.sin(8 * np.arctan2(x[..., 1], x[..., 2])) * (1 - (x[..., 0] / radius) ** 2) ** 2
    return torch.from_numpy(np.where(radius < wave, 1, np.where(radius < wave + 3, 2, 0)))[None]


def parametric_area(base):
    """Area of `r = base + 6 sin(8 azimuth) sin⁴(polar)`, and of its convex hull, from a fine grid of angles."""
    polar, azimuth = np.meshgrid(np.linspace(0, np.pi, 121), np.linspace(0, 2 * np.pi, 361), indexing="ij")
    radius = base + 6 * np.sin(8 * azimuth) * np.sin(polar) ** 4
    ring = np.sin(polar)
    x = radius[..., None] * np.stack([np.cos(polar), ring * np.sin(azimuth), ring * np.cos(azimuth)], axis=-1)
    a, b = np.diff(x, axis=0)[:, :-1], np.diff(x, axis=1)[:-1]
    return np.linalg.norm(np.cross(a, b), axis=-1).sum(), ConvexHull(x.reshape(-1, 3)).area


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.5, 2.0)])
@pytest.mark.parametrize(("inner", "outer"), [(25, 27.5), (30, 34)])
def test_a_spherical_shell(inner, outer, spacing):
    found = cortical_measures(shell(inner, outer, spacing), CLASSES, spacing)
    assert found.thickness == pytest.approx(outer - inner, abs=0.06)
    assert found.white_area == pytest.approx(4 * np.pi * inner**2, rel=0.03)
    assert found.pial_area == pytest.approx(4 * np.pi * outer**2, rel=0.03)
    assert found.folding == pytest.approx(1, abs=0.02)
    assert found.white_folding == pytest.approx((inner / outer) ** 2, abs=0.02)


@pytest.mark.parametrize("size", [1.0, 1.5])
def test_a_folded_surface(size):
    white, _ = parametric_area(32)
    pial, hull = parametric_area(35)
    found = cortical_measures(folded((size,) * 3), CLASSES, (size,) * 3)
    assert found.white_area == pytest.approx(white, rel=0.03)
    assert found.pial_area == pytest.approx(pial, rel=0.03)
    assert found.hull_area == pytest.approx(hull, rel=0.02)
    assert found.folding == pytest.approx(pial / hull, rel=0.02)
    assert pial / hull > 1.03


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
def test_banks_that_touch_are_half_of_what_lies_between_them(spacing):
    """Blades of white matter 10 mm wide, 6 mm apart, on a plate; all grooves filled with cortex."""
    x = points(34, spacing, offset=(0.5, 0.5, 0.5))
    blade = (x[..., 2] + 30) % 16 < 10
    inside = (np.abs(x) <= 30).all(axis=-1) & (x[..., 2] < 28)
    labels = np.where(inside & (blade | (x[..., 0] < -20)), 1, np.where(inside, 2, 0))
    found = cortical_measures(torch.from_numpy(labels)[None], CLASSES, spacing)
    assert found.thickness == pytest.approx(3, abs=0.25)
    assert found.white_area > 1.5 * found.pial_area


@pytest.mark.parametrize("turn", [(2, 1, 3), (3, 2, 1), (2, 3, 1)])
def test_the_order_and_direction_of_axes_do_not_matter(turn):
    spacing = np.array([1.0, 1.5, 2.0])
    labels = folded(tuple(spacing))
    turned = labels.permute(0, *turn).flip(1, 3)
    expected = cortical_measures(labels, CLASSES, spacing)
    found = cortical_measures(turned, CLASSES, spacing[[axis - 1 for axis in turn]])
    assert found == pytest.approx(expected, rel=5e-3)


def test_scaling():
    labels = folded((1.5, 1.5, 1.5))
    small, large = (cortical_measures(labels, CLASSES, (s, s, s)) for s in (1.0, 2.0))
    assert large.thickness == pytest.approx(2 * small.thickness, rel=1e-3)
    assert large.pial_area == pytest.approx(4 * small.pial_area, rel=1e-4)
    assert large.white_area == pytest.approx(4 * small.white_area, rel=1e-4)
    assert large.folding == pytest.approx(small.folding, rel=1e-4)


def test_the_greatest_distance_on_a_ray_is_that_of_all_its_points():
    generator = np.random.default_rng(0)
    surface, start = generator.normal(size=(60, 3)), generator.normal(size=(300, 3))
    step = generator.normal(size=(300, 3)) / 10
    ends = generator.integers(0, 21, 300)
    asked = []

    class Counting(cKDTree):
        def query(self, x):
            asked.append(np.atleast_2d(x).shape[0])
            return super().query(x)

    tree = Counting(np.concatenate([surface, start]))
    depth, rising = _greatest(tree, start, step, ends)
    assert sum(asked) < 0.7 * ends.sum()
    for ray in range(300):
        found = [tree.query(start[ray] + k * step[ray])[0] for k in range(1, ends[ray] + 1)]
        assert depth[ray] == pytest.approx(max(found, default=0), abs=1e-12)
        assert rising[ray] == (ends[ray] > 0 and (ends[ray] == 1 or found[-1] > max(found[:-1])))


def test_where_no_cortex_is_no_area_counts_and_what_lies_within_is_no_hole():
    whole = shell(20, 23, ISOTROPIC)
    middle = whole.shape[1] // 2
    filled, half = whole.clone(), whole.clone()
    filled[:, middle - 4 : middle + 4, middle - 5 : middle + 5, middle - 6 : middle + 6] = 4
    assert cortical_measures(filled, CLASSES, ISOTROPIC) == cortical_measures(whole, CLASSES, ISOTROPIC)
    lower = half[:, :middle]
    lower[lower == 2] = 0
    found, expected = (cortical_measures(x, CLASSES, ISOTROPIC) for x in (half, whole))
    assert found.white_area == pytest.approx(expected.white_area / 2, rel=0.03)
    rim = np.pi * (23**2 - 20**2)
    assert found.pial_area == pytest.approx(expected.pial_area / 2 + rim, rel=0.03)
    assert found.thickness == pytest.approx(3, abs=0.06)


def test_sides_are_taken_together():
    labels = shell(15, 18, ISOTROPIC)
    sides = torch.where((labels == 2) & (torch.arange(labels.shape[-1]) > 20), 3, labels)
    names = ("Unknown", "Left-Cerebral-White-Matter", "Left-Cerebral-Cortex", "Right-Cerebral-Cortex")
    assert cortical_measures(sides, names, ISOTROPIC) == cortical_measures(labels, CLASSES, ISOTROPIC)


def test_errors_name_what_is_missing():
    labels = shell(10, 13, ISOTROPIC)
    with pytest.raises(UserError, match="need the class Cerebral-Cortex, found Unknown, label-1, label-2"):
        cortical_measures(labels, ("Unknown", "label-1", "label-2"), ISOTROPIC)
    with pytest.raises(UserError, match="label 7 has no name"):
        cortical_measures(torch.where(labels == 2, 7, labels), CLASSES, ISOTROPIC)
    for lost, name in ((2, "Cerebral-Cortex"), (1, "Cerebral-White-Matter")):
        with pytest.raises(UserError, match=f"without {name}"):
            cortical_measures(torch.where(labels == lost, 0, labels), CLASSES, ISOTROPIC)


def test_the_templates_cortex_is_plausible():
    from cortexgen.atlas.template import load_template

    template = load_template()
    template = template.to(template.grid.at_spacing(2))
    found = cortical_measures(template.labels, template.classes, template.grid.spacing)
    assert 2 < found.thickness < 4.5
    assert 1.0e5 < found.pial_area < 2.2e5 and 1.2e5 < found.white_area < 2.2e5
    assert 1.3 < found.folding < 2.5


def test_real_brains_are_plausible(real_brains):
    from cortexgen.atlas.template import read_label_table
    from cortexgen.io import read_volume

    names = read_label_table(real_brains / "dseg.tsv")
    path = real_brains / "sub-01" / "anat" / "sub-01_space-MNI152NLin2009aSym_res-2_dseg.nii.gz"
    labels, grid = read_volume(path, labels=True)
    found = cortical_measures(labels, [names[k] for k in sorted(names)], grid.spacing)
    assert 2 < found.thickness < 4.5
    assert 1.0e5 < found.pial_area < 2.2e5 and 1.2e5 < found.white_area < 2.2e5
    assert 1.3 < found.folding < 2.5
