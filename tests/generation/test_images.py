"""Brains of a network that draws images, here one whose answer is known."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.generation.images import FAINT, ImageGenerator
from cortexgen.io import Grid

WHOLE = Grid((20, 22, 18), np.diag([0.0, 0, 0, 1]) + np.eye(4)[[2, 1, 0, 3]] * np.array([4.0, 4, 4, 0]), "RAS")
BOX = WHOLE.box([3, 4, 5], [16, 19, 12])
PEOPLE = [{"age": 30.0, "sex": "F"}, {"age": 60.0, "sex": "M"}]
SPECS = {
    "age": {"mean": 45.0, "std": 15.0, "min": 30.0, "max": 60.0},
    "sex": {"levels": ["F", "M"], "shares": [0.5, 0.5]},
}


class Network:
    """A ball whose brightness is drawn, and half of it where it is asked for age 60; a far voxel, and faint haze."""

    device = torch.device("cpu")

    def __init__(self, **contract: Any) -> None:
        self.contract = {"template": {"hash": "0"}, "grid": BOX.to_dict(), "image_grid": WHOLE.to_dict(), **contract}

    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        axes = [torch.arange(n) - (n - 1) / 2 for n in BOX.shape]
        d, h, w = torch.meshgrid(*axes, indexing="ij")
        radius = (d**2 + h**2 + w**2).sqrt()
        light = (0.5 + 0.4 * torch.rand((), generator=random)) / (2 if conditions.get("age") == 60 else 1)
        image = torch.where(radius < 4, light, torch.tensor(0.6 * FAINT))
        image[radius < 1.5] = -0.2  # a hole
        image[0, 0, 0] = 1.0
        return image[None]

    def weights_hash(self) -> str:
        return "1"

    def sampling(self) -> dict[str, Any]:
        return {"steps": 3}


def test_a_brain_is_one_piece_on_the_whole_grid() -> None:
    brain = ImageGenerator(Network()).draw(0)
    assert brain.labels is None and brain.grid.matches(WHOLE) and brain.image.shape == (1, *WHOLE.shape)
    inside = torch.nonzero(brain.image[0] > 0)
    low, high = inside.min(dim=0).values, inside.max(dim=0).values
    centre = torch.tensor([3 + 6.5, 4 + 7.5, 5 + 3.5])
    assert torch.equal(low.float() + high.float(), 2 * centre) and (high - low).max() <= 8
    raw = Network().sample(torch.Generator(), {})
    values = brain.image[brain.image > 0].unique()
    assert len(values) == 1 and 0.5 <= float(values) <= 0.9 and float(raw.max()) == 1.0
    assert float(brain.image.min()) == 0.0


def test_a_brain_depends_on_seed_and_number_alone() -> None:
    first = [ImageGenerator(Network(), seed=4).draw(k).image for k in (0, 1, 2)]
    again = ImageGenerator(Network(), seed=4)
    assert all(torch.equal(again.draw(k).image, first[k]) for k in (2, 0, 1))
    other = ImageGenerator(Network(), seed=5).draw(0).image
    assert len({float(x.max()) for x in (*first, other)}) == 4


def test_people_are_the_training_ones_unless_asked_for() -> None:
    network = Network(covariates=SPECS, people=PEOPLE)
    drawn = [ImageGenerator(network).draw(k) for k in range(40)]
    ages = Counter(brain.conditions["age"] for brain in drawn)
    assert set(ages) == {30.0, 60.0} and min(ages.values()) > 10
    assert all(brain.conditions in PEOPLE for brain in drawn)
    assert all((float(brain.image.max()) < 0.46) == (brain.conditions["age"] == 60) for brain in drawn)
    asked = [ImageGenerator(network, conditions={"age": 60}).draw(k).conditions for k in range(20)]
    assert {row["age"] for row in asked} == {60} and {row["sex"] for row in asked} == {"F", "M"}


def test_what_cannot_be_asked_for_is_said() -> None:
    with pytest.raises(UserError, match="'age' is not a covariate"):
        ImageGenerator(Network(), conditions={"age": 60})
    with pytest.raises(UserError, match="'x' is none of F, M"):
        ImageGenerator(Network(covariates=SPECS), conditions={"sex": "x"})
    with pytest.warns(UserWarning, match="age"):
        ImageGenerator(Network(covariates=SPECS, people=PEOPLE), conditions={"age": 90})


@pytest.mark.parametrize("value, said", [(0.0, "nothing in it is brighter"), (float("nan"), "no number")])
def test_what_is_no_brain_is_said(value: float, said: str) -> None:
    network = Network()
    network.sample = lambda *_: torch.full((1, *BOX.shape), value)  # type: ignore[method-assign]
    with pytest.raises(UserError, match=f"sample 8: .*{said}"):
        ImageGenerator(network).draw(7)


def test_records_say_what_brains_depend_on() -> None:
    made_by = ImageGenerator(Network(), seed=3).describe()
    assert made_by["Weights"] == "1" and made_by["Template"] == "0"
    assert made_by["Parameters"]["steps"] == 3 and made_by["Parameters"]["sample_seed"] == 3
