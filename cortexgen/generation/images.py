"""Brains of a network that draws images and knows no labels."""

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from cortexgen.atlas.solid import solid
from cortexgen.contracts import Brain, Generator
from cortexgen.data.covariates import CovariateEncoder
from cortexgen.errors import UserError
from cortexgen.generation.velocities import numbered_generator
from cortexgen.io import Grid
from cortexgen.runner.precision import Precision, arithmetic_name, autocast
from cortexgen.runner.threads import single_thread
from cortexgen.spatial import resample

FAINT = 0.05  # of white matter's brightness: what is darker at the border is background


class ImageNetwork(Protocol):
    """A trained network that draws images."""

    contract: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """That it is on."""

    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        """An image on the contract's `grid`, `[1, D, H, W]`, about in [0, 1].

        Arguments:
            random: what the image is made of; on the CPU, whatever the device.
            conditions: covariates of the person, by name.
        """

    def weights_hash(self) -> str:
        """sha256 of the parameters."""

    def sampling(self) -> dict[str, Any]:
        """Run-time options that a sample depends on."""


class ImageGenerator(Generator):
    """Images of a network on the whole grid of its training images, in one piece, 0 outside the brain.

    Arguments:
        network: in evaluation mode.
        seed: image k depends on it and on k alone.
        conditions: covariates that are asked for, such as `{age: 50}`; the others, where the network was trained with
            some, are those of a training person, drawn for each brain.
        precision: of the network.

    Raises:
        UserError: for covariates that it doesn't know.
    """

    def __init__(
        self,
        network: ImageNetwork,
        seed: int = 0,
        conditions: Mapping[str, Any] | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.network, self.seed, self.precision = network, seed, precision
        self.contract, self.conditions = network.contract, dict(conditions or {})
        if "image_grid" not in self.contract:
            raise UserError("there are no trained weights to sample from: give --ckpt_path")
        self.grid = Grid.from_dict(self.contract["image_grid"])
        self.working = Grid.from_dict(self.contract["grid"])
        for line in CovariateEncoder(self.contract.get("covariates", {})).check(self.conditions):
            warnings.warn(line, stacklevel=2)

    def conditions_of(self, index: int) -> dict[str, Any]:
        """Covariates of brain `index`."""
        people = self.contract.get("people", [])
        if not people:
            return dict(self.conditions)
        who = int(torch.randint(len(people), (), generator=numbered_generator(self.seed, index, "who")))
        return people[who] | self.conditions

    @torch.no_grad()
    def draw(self, index: int) -> Brain:
        conditions = self.conditions_of(index)
        with single_thread(), autocast(self.network.device, self.precision):
            random = numbered_generator(self.seed, index, "image")
            image = self.network.sample(random, conditions).float().cpu()
        if not torch.isfinite(image).all():
            raise UserError(f"sample {index + 1}: holds what is no number; the training that made these weights failed")
        image = image.clamp(0, 1) * solid(image > FAINT)
        if not image.any():
            raise UserError(f"sample {index + 1}: nothing in it is brighter than {FAINT:g}; train longer")
        if not self.working.matches(self.grid):
            place = self.working.torch_affine, self.grid.shape, self.grid.torch_affine
            image = resample(image[None], *place)[0].clamp(0, 1)
        return Brain(index, image, self.grid, conditions=conditions)

    def describe(self) -> dict[str, Any]:
        options: dict[str, Any] = {"conditions": self.conditions or None, "sample_seed": self.seed}
        options |= self.network.sampling() | {"grid": str(self.grid), "device": self.network.device.type}
        options["precision"] = arithmetic_name(self.network.device, self.precision)
        template = self.contract["template"]["hash"]
        return {"Weights": self.network.weights_hash(), "Template": template, "Parameters": options}
