"""How images look: damages of known kinds move the measure that is there to see them, and only worse ones more."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cortexgen.atlas.template import Template, load_template
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store
from cortexgen.evaluation.texture import METRICS, POWER, Texture, collect, curve_rows, groups, measured_texture
from cortexgen.metrics.resampling import Interval
from cortexgen.metrics.texture import edge_profile, gradient_energy, relative_power, tissue_histograms

Damage = Callable[[Tensor, float, int], Tensor]


@pytest.fixture(scope="module")
def template() -> Template:
    whole = load_template()
    return whole.to(whole.grid.at_spacing(4.0))


def noisy(image: Tensor, level: float, seed: int) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + level * noise).clamp(0, 1) * (image > 0.05)


def blurred(image: Tensor, sigma: float, seed: int) -> Tensor:
    return torch.from_numpy(gaussian_filter(noisy(image, 0.02, seed).numpy(), (0, sigma, sigma, sigma)))


def flat(image: Tensor, exponent: float, seed: int) -> Tensor:
    return noisy(image, 0.02, seed) ** exponent


def texture(template: Template, damage: Damage, severity: float, first: int, labelled: bool = True) -> Texture:
    """Of six noisy templates."""
    found, spacing, names = {}, template.grid.spacing, list(template.classes)
    assert template.labels is not None
    for i in range(6):
        image = damage(template.image, severity, first + i)
        found[i] = {
            "power": relative_power(image, spacing).numpy(),
            "gradient": np.array(gradient_energy(image, template.mask, spacing)),
        }
        if labelled:
            found[i] |= {
                "histograms": tissue_histograms(image, template.labels, names).numpy(),
                "edge": edge_profile(image, template.labels, names, spacing).numpy(),
            }
    return collect(found, 0.5 / max(spacing))


def value(name: str, real: Texture, other: Texture) -> float:
    metric = next(m for m in METRICS if m.name == name)
    rows = [metric.rows(each) for each in (real, other)]
    return metric.statistic(*rows)


@pytest.mark.parametrize(
    ("name", "damage", "severities"),
    [
        ("spectrum", blurred, (0.3, 0.6, 1.2)),
        ("spectrum", noisy, (0.04, 0.08, 0.16)),
        ("edge", blurred, (0.5, 0.8, 1.6)),
        ("intensities", flat, (1.1, 1.4, 2.0)),
        ("intensities", noisy, (0.06, 0.1, 0.2)),
    ],
)
def test_worse_damage_is_further_off(
    template: Template, name: str, damage: Damage, severities: tuple[float, ...]
) -> None:
    real = texture(template, noisy, 0.02, 0)
    values = [value(name, real, texture(template, noisy, 0.02, 50))]
    values += [value(name, real, texture(template, damage, severity, 50)) for severity in severities]
    assert values == sorted(values) and len(set(values)) == len(values)
    assert values[1] > 1.5 * values[0]


def test_gradients_fall_with_blur_and_rise_with_noise(template: Template) -> None:
    real = texture(template, noisy, 0.02, 0)
    ratios = [value("gradients", real, texture(template, d, s, 50)) for d, s in ((blurred, 1.0), (noisy, 0.15))]
    assert ratios[0] < 0.8 and ratios[1] > 1.2
    assert value("gradients", real, texture(template, noisy, 0.02, 50)) == pytest.approx(1, abs=0.02)


def test_curves_hold_means_and_the_range_of_brains(template: Template) -> None:
    real, other = texture(template, noisy, 0.02, 0), texture(template, noisy, 0.15, 50)
    found = groups(curve_rows(real, other))
    assert list(found) == [POWER, "WM", "Cortical-GM", "Ventricles", "edge"]
    last = found[POWER][-1]
    assert isinstance(last["real"], Interval) and last["mean"] == pytest.approx(float(other.power[:, -1].mean()))
    assert last["real"].value == pytest.approx(float(real.power[:, -1].mean()))
    assert last["real"].low < last["real"].value < last["real"].high < last["mean"]
    expected = (last["mean"] - last["real"].value) / float(real.power[:, -1].std())
    assert last["z"] == pytest.approx(expected)
    assert [row["at"] for row in found[POWER]] == pytest.approx([0.125 / 6 * (k + 0.5) for k in range(6)])
    assert sum(row["mean"] for row in found["WM"]) == pytest.approx(1)


def test_without_labels_there_are_spectra_alone(template: Template) -> None:
    real, other = (texture(template, noisy, 0.02, first, labelled=False) for first in (0, 50))
    assert list(groups(curve_rows(real, other))) == [POWER]
    known = {m.name for m in METRICS if m.rows(real) is not None}
    assert known == {"spectrum", "gradients"}


def test_a_brain_whose_labels_came_later_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for k in range(2):
        image = np.random.default_rng(k).uniform(0.2, 1, (8, 8, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.diag([4.0, 4, 4, 1])), tmp_path / "set" / f"{k}.nii.gz")
    store = Store("set", BrainSet(tmp_path / "set", rescale=False), tmp_path / "work")
    store.fill()
    assert measured_texture(store).edge.isnan().all()
    labels = np.ones((1, 8, 8, 8), np.uint8)
    labels[:, 4:] = 2
    store.measure("labels", "k", lambda _: {"labels": labels})
    names = {1: "Cerebral-White-Matter", 2: "Cerebral-Cortex"}
    found = measured_texture(store, [1], "k", names)
    assert found.edge[0].isnan().all() and not found.edge[1].isnan().all()
    assert not measured_texture(store, [0, 1], "k", names).edge.isnan().all(dim=1).any()
