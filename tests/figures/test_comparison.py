"""What the charts that set groups of brains beside real ones show."""

import math

import numpy as np
import pytest
import torch

from cortexgen.figures import to_png
from cortexgen.figures.comparison import distance_histograms, distributions, effect_forest, neighbours, plain
from cortexgen.io import Grid
from cortexgen.metrics.resampling import Interval

REGIONS = ["Left-A", "B", "C"]
GRID = Grid((9, 11, 13), np.diag([2.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]])


def _brain(seed: int) -> torch.Tensor:
    image = torch.zeros(GRID.shape)
    image[2:7, 2:9, 2:11] = 0.5 + 0.5 * torch.rand(5, 7, 9, generator=torch.Generator().manual_seed(seed))
    return image


def _points(axes, names):
    """x by region of a panel of the forest."""
    lines = [line for line in axes.lines if line.get_marker() == "o"]
    return {names[int(line.get_ydata()[0])]: float(line.get_xdata()[0]) for line in lines}


def test_effects_stand_at_their_values_in_order_of_their_size():
    effects = {"a": [Interval(0.1, -0.2, 0.4), Interval(-1.5, -2.0, -1.0), None], "b": [Interval(0.3, 0, 0.6)] * 3}
    first, second = effect_forest(REGIONS, effects, 0.2, "d").axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["B", "Left A", "C"] and first.yaxis_inverted()
    assert _points(first, names) == {"Left A": 0.1, "B": -1.5}
    assert _points(second, names) == {"Left A": 0.3, "B": 0.3, "C": 0.3}
    intervals = [line.get_xdata() for line in first.lines if len(line.get_xdata()) == 2][1:]  # after the line at 0
    assert np.allclose(sorted(x[0] for x in intervals), [-2.0, -0.2])
    assert first.get_xlim() == second.get_xlim() and first.get_xscale() == "linear"
    low, high = first.get_xlim()
    assert low == -high and high >= 2.0
    assert first.patches[0].get_extents().width > 0


def test_large_effects_get_a_logarithmic_axis_and_endless_intervals_an_arrow():
    effects = {"a": [Interval(20.0, -math.inf, 300.0), Interval(0.1, 0.0, 0.2), Interval(1.0, 0.5, 1.5)]}
    (axes,) = effect_forest(REGIONS, effects, 0.2, "d").axes
    assert axes.get_xscale() == "symlog" and _points(axes, ["Left A", "C", "B"])["Left A"] == 20.0
    assert axes.get_xlim()[1] > 20 and [line.get_marker() for line in axes.lines].count("<") == 1
    assert to_png(effect_forest(REGIONS, effects, 0.2, "d"), 40).startswith(b"\x89PNG")


@pytest.mark.parametrize("effects", [{}, {"a": [None]}])
def test_effects_must_fit_the_regions(effects):
    with pytest.raises(ValueError, match="expected 3 effects"):
        effect_forest(REGIONS, effects, 0.2, "d")


def test_every_brain_is_a_point_of_its_group():
    groups = {"real": np.array([[1.0, 2.0], [3.0, math.nan]]), "set $x$": np.array([[5.0, 6.0]])}
    figure = distributions(groups, ["thickness [mm]", "area"])
    points = [[sorted(c.get_offsets()[:, 0].tolist()) for c in axes.collections] for axes in figure.axes]
    assert points == [[[1.0, 3.0], [5.0]], [[2.0], [6.0]]]
    assert [axes.get_title("left") for axes in figure.axes] == ["thickness [mm]", "area"]
    assert to_png(figure, 40).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="real: expected values"):
        distributions(groups, ["thickness"])


def test_histograms_are_shares_of_brains():
    samples, reference = torch.tensor([0.1, 0.1, 0.4]), torch.tensor([0.2, 0.3])
    (axes,) = distance_histograms([("a", "mm", samples, reference, 0.05)]).axes
    heights: dict[float, float] = {}
    for patch in axes.patches:
        if patch.__class__.__name__ == "Rectangle" and patch.get_height():
            middle = patch.get_x() + patch.get_width() / 2
            heights[middle] = patch.get_height()
    places = {0.1: 200 / 3, 0.4: 100 / 3, 0.2: 50.0, 0.3: 50.0}
    assert len(heights) == len(places)
    for (middle, height), (value, share) in zip(sorted(heights.items()), sorted(places.items()), strict=True):
        assert abs(middle - value) < 0.01 and height == pytest.approx(share)
    assert axes.lines[0].get_xdata()[0] == 0.05
    with pytest.raises(ValueError, match="got none"):
        distance_histograms([])


def test_neighbours_show_the_difference():
    sample, subject = _brain(0), _brain(1)
    figure = neighbours([("first", "b", sample, subject), ("same", "a", sample, sample)], GRID)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 12
    for row, other in enumerate((subject, sample)):
        for k, (axis, plane) in enumerate(((0, 4), (1, 5))):
            images = shown[6 * row + 3 * k : 6 * row + 3 * k + 3]
            cuts = [volume.select(axis, plane) for volume in (sample, other, (sample - other).abs())]
            for image, cut in zip(images, cuts, strict=True):
                assert np.allclose(image, cut.numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="got none"):
        neighbours([], GRID)


def test_text_is_no_formula_and_can_be_cut():
    assert plain("a_$b$") == r"a_\$b\$"
    assert plain("abcdef", 4) == "abc…" and plain("abcd", 4) == "abcd"
