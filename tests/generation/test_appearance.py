"""Images and labels of brains whose network's answer is known."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from cortexgen.data.style import STYLE
from cortexgen.errors import UserError
from cortexgen.generation import learned
from cortexgen.generation.appearance import Rendered, Shape, UnfitAppearance, carried
from cortexgen.generation.cascade import CascadedAppearance
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

    def render(self, image, labels, place, conditions, noise, patch=None):
        self.patch = patch
        self.seen.append((image, labels, place, conditions, drawn := noise()))
        self.later = noise()
        return drawn[:1].abs().clamp(0, 1)

    def weights_hash(self):
        return "w"


def shape(seed=0, **conditions):
    labels = torch.zeros(1, *GRID.shape, dtype=torch.int64)
    labels[:, 8:16, 10:30, 8:20], labels[:, 10:14, 13:27, 11:17] = 2, 1
    image = torch.tensor([0.0, 0.8, 0.5])[labels]

    def random(what):
        return torch.Generator().manual_seed(seed + len(what))

    return Shape(image, labels, CLASSES, GRID, torch.zeros(3, *GRID.shape), 1.0, conditions, random)


def test_a_cohort_that_the_weights_do_not_know_is_drawn_from_theirs():
    network = Network()
    network.contract["covariates"]["cohort"] = {"levels": ["a", "b"]}
    network.contract["people"] = [row | {"cohort": name} for row, name in zip(PEOPLE, "aab", strict=True)]
    appearance = LearnedAppearance(network)
    with pytest.warns(UserWarning, match="its weights know no cohort c; each brain looks as one"):
        appearance.render(shape(age=60, cohort="c"))
    assert network.seen[-1][3]["cohort"] in "ab"
    for known in "ab":
        appearance.render(shape(age=60, cohort=known))
        assert network.seen[-1][3]["cohort"] == known


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


def test_each_step_of_a_sampler_that_asks_for_noise_has_its_own():
    network = Network()
    LearnedAppearance(network).render(shape())
    first, later = network.seen[0][4].flatten(), network.later.flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, later]))[0, 1])) < 0.05


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


def test_parts_are_worked_on_where_memory_is_short(monkeypatch):
    network = Network()
    monkeypatch.setattr(learned, "free_memory", lambda device: 1e6)
    appearance = LearnedAppearance(network)
    with pytest.warns(UserWarning, match=r"takes about 0\.0 GB of memory, 0\.0 are free; .* parts of 96 voxels"):
        appearance.check("t" * 64, CLASSES, GRID)
    appearance.render(shape())
    assert network.patch == 96 == appearance.describe()["appearance_patch"]
    monkeypatch.setattr(learned, "free_memory", lambda device: 1e9)
    whole = LearnedAppearance(network)
    whole.check("t" * 64, CLASSES, GRID)
    whole.render(shape())
    assert network.patch is None and "appearance_patch" not in whole.describe()
    for size in (8, 20, -16):
        with pytest.raises(UserError, match="appearance_patch: expected a multiple of 8"):
            LearnedAppearance(network, patch=size)


FINE = GRID.at_spacing(1.0)


def cascade(coarse=2.0):
    first, second = Network(), Network()
    second.contract = second.contract | {"grid": FINE.to_dict(), "coarse": coarse}
    second.contract["covariates"] = {"age": {}} | {key: {} for key in STYLE}
    return second, CascadedAppearance(LearnedAppearance(first), LearnedAppearance(second))


def test_a_finer_model_begins_with_the_coarse_image_its_labels_and_its_style():
    network, appearance = cascade()
    appearance.check("t" * 64, CLASSES, FINE)
    small, seen = FINE.at_spacing(2.0), []
    labels = torch.zeros(1, *small.shape, dtype=torch.int64)
    labels[:, 8:16, 10:30, 8:20], labels[:, 10:14, 13:27, 11:17] = 2, 1
    image = torch.tensor([0.0, 0.8, 0.5])[labels] + torch.rand(labels.shape) * (labels > 0) / 10
    rendered = Rendered(image, labels, dict.fromkeys(STYLE, 0.14))
    appearance.coarse.render = lambda below: seen.append(below) or rendered
    places = [(np.arange(n) - (n - 1) / 2) / 2 + (m - 1) / 2 for n, m in zip(FINE.shape, small.shape, strict=True)]
    places = np.stack(np.meshgrid(*places, indexing="ij"))
    up = torch.from_numpy(map_coordinates(image[0].numpy(), places, order=1))
    fine = torch.from_numpy(map_coordinates(labels[0].numpy(), places.round(), order=0))[None]
    given = replace(shape(), image=torch.tensor([0.0, 0.8, 0.5])[fine], labels=fine, grid=FINE)
    found = appearance.render(given)
    assert seen[0].image.shape[1:] == small.shape and found.image.shape[1:] == FINE.shape
    assert set(seen[0].labels.unique().tolist()) == {0, 1, 2}
    begun, conditions = network.seen[0][0], network.seen[0][3]
    torch.testing.assert_close(begun, up[None][_box(up > 0, FINE)], atol=1e-5, rtol=0)
    assert set(network.seen[0][1].unique().tolist()) == set(rendered.labels.unique().tolist())
    assert {name: conditions[name] for name in STYLE} == dict(rendered.style) == dict(found.style)


def test_models_that_do_not_go_together_are_refused():
    with pytest.raises(UnfitAppearance, match="voxels of 1 x 1 x 1 mm, these are 2 x 2 x 2 mm; give --resolution 1"):
        cascade()[1].check("t" * 64, CLASSES, GRID)
    with pytest.raises(UserError, match="begin with voxels of 3 mm, the appearance makes 2"):
        cascade(coarse=3.0)
    with pytest.raises(UserError, match="begin with warped templates"):
        cascade(coarse=None)
    described = cascade()[1].describe()
    assert described["appearance"] == "learned" and described["finer_appearance_weights"] == "w"


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
