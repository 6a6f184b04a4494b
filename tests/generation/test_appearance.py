"""Images and labels of brains whose network's answer is known."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cortexgen.data.style import STYLE
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Shape, UnfitAppearance, carried
from cortexgen.generation.learned import LearnedAppearance, _box
from cortexgen.io import Grid

GRID = Grid((24, 40, 28), np.array([[0, 0, 2, -28], [0, 2, 0, -40], [2, 0, 0, -24], [0, 0, 0, 1.0]]))
CLASSES = ("Unknown", "Cerebral-White-Matter", "Cerebral-Cortex")
PEOPLE = [{"age": age} | dict.fromkeys(STYLE, 0.1 + age / 1000) for age in (20, 40, 60)]


class Network(SimpleNamespace):
    """Stands for a trained module: an image of nothing but the noise that it was given."""

    def __init__(self):
        contract = {"people": PEOPLE, "covariates": {"age": {}}, "grid": GRID.to_dict(), "template": {"hash": "t" * 64}}
        super().__init__(
            contract=contract, sampler="dpm++", steps=12, guidance=1.0, device=torch.device("cpu"), seen=[]
        )

    def render(self, image, labels, place, conditions, noise):
        self.seen.append((image, labels, place, conditions, noise))
        return noise[:1].abs().clamp(0, 1)

    def weights_hash(self):
        return "w"


def shape(seed=0, **conditions):
    labels = torch.zeros(1, *GRID.shape, dtype=torch.int64)
    labels[:, 8:16, 10:30, 8:20], labels[:, 10:14, 13:27, 11:17] = 2, 1
    image = torch.tensor([0.0, 0.8, 0.5])[labels]

    def random(what):
        return torch.Generator().manual_seed(seed + len(what))

    return Shape(image, labels, CLASSES, GRID, torch.zeros(3, *GRID.shape), 1.0, conditions, random)


def test_noise_is_of_the_whole_grid_whatever_part_is_worked_on():
    network = Network()
    rendered = LearnedAppearance(network).render(shape())
    noise = torch.randn((2, *GRID.shape), generator=torch.Generator().manual_seed(len("appearance")))
    box = _box(shape().image[0] > 0, GRID)
    assert torch.equal(network.seen[0][4], noise[box])
    assert torch.equal(rendered.image[box], noise[box][:1].abs().clamp(0, 1))
    outside = rendered.image.clone()
    outside[box] = 0
    assert not outside.any()


def test_the_part_holds_the_brain_and_a_margin_in_sides_that_are_taken_as_they_are():
    brain = shape().image[0] > 0
    box = _box(brain, GRID)
    inside = torch.zeros_like(brain)
    inside[box[1:]] = True
    assert bool(inside[brain].all())
    sizes = [side.stop - side.start for side in box[1:]]
    assert all(size % 8 == 0 or size == n for size, n in zip(sizes, GRID.shape, strict=True))
    assert sizes[1] >= 20 + 2 * 6


def test_conditions_and_style_reach_the_network():
    network = Network()
    rendered = LearnedAppearance(network, {"noise": 0.15}).render(shape(age=58, other=1))
    conditions = network.seen[0][3]
    assert conditions["age"] == 58
    assert conditions["noise"] == rendered.style["noise"] == 0.15
    assert "other" not in conditions
    assert set(rendered.style) == set(STYLE)


def test_a_brain_depends_on_its_random_numbers_alone():
    first, again, other = (LearnedAppearance(Network()).render(shape(seed)) for seed in (0, 0, 5))
    assert torch.equal(first.image, again.image)
    assert first.style == again.style
    assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize(
    "style, message",
    [
        ({"blur": 1}, "no 'blur'"),
        ({"noise": 3}, "noise is 0.12 to 0.16"),
        ({"noise": True}, "got True"),
        ({"noise": float("nan")}, "got nan"),
    ],
)
def test_a_style_that_there_is_not(style, message):
    with pytest.raises(UserError, match=message):
        LearnedAppearance(Network(), style)


def test_another_template_or_voxel_size_is_refused():
    appearance = LearnedAppearance(Network())
    appearance.check("t" * 64, CLASSES, GRID)
    with pytest.raises(UnfitAppearance, match="template has hash tttttttttttt, this one uuu"):
        appearance.check("u" * 64, CLASSES, GRID)
    with pytest.raises(UnfitAppearance, match="make voxels of 2 x 2 x 2 mm, these are 1 x 1 x 1 mm"):
        appearance.check("t" * 64, CLASSES, GRID.at_spacing(1.0))


def test_parcels_follow_their_classes():
    before = torch.tensor([1, 1, 1, 2, 2, 2, 0, 0]).view(1, 1, 1, 8)
    after = torch.tensor([1, 1, 1, 1, 2, 2, 2, 0]).view(1, 1, 1, 8)
    parcels = torch.tensor([11, 12, 13, 21, 22, 23, 0, 0]).view(1, 1, 1, 8)
    assert carried(parcels, before, after).flatten().tolist() == [11, 12, 13, 13, 22, 23, 23, 0]
    assert torch.equal(carried(parcels, before, before), parcels)


def test_a_class_that_was_nowhere_leaves_parcels_alone():
    before, after = torch.zeros(1, 2, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, 2, dtype=torch.int64)
    assert torch.equal(carried(before, before, after), before)


def test_the_place_of_files_is_named(tmp_path):
    from cortexgen.generation.donors import DonorAppearance

    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(UserError):
        DonorAppearance(Path(tmp_path), SimpleNamespace())
