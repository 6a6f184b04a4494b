"""Features of brains: a small network that learns to tell age, sex, volumes and style from an image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.data.noise import SampleNoise
from cortexgen.data.style import STYLE
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.modules.base import StageModule
from cortexgen.nets import RegionCNN
from cortexgen.spatial.precision import full_precision

LEAST = 1e-2  # ml, of a volume whose logarithm is taken


class FeatureModule(StageModule):
    """Learns what an image says of a person: covariates, the style of the picture, and regional volumes.

    Volumes are the logarithms of those of the template's labels, as registration warped them to the person. Numbers are
    standardized by the training people's and answered with a squared error, a covariate of two levels with a cross
    entropy. The features, means of `RegionCNN`'s channels within the template's regions, are what sets of brains are
    compared by.

    Arguments:
        classes: of the template, background among them; each is a region.
        covariates: columns of participants.tsv, numbers or two levels each.
        widths, kept, dropout: of `RegionCNN`.
        shift: voxels that a training image is moved by at most, along each axis.
        gain: training images are multiplied by up to so much more or less than 1.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        warmup_steps: of the learning rate, linear.
        lr_decay: let it fall to a tenth as half a cosine.
    """

    stage = "features"

    def __init__(
        self,
        classes: int = 18,
        covariates: Sequence[str] = ("age", "sex"),
        widths: Sequence[int] = (12, 20, 40, 48, 64),
        kept: tuple[int, int] = (8, 16),
        dropout: float = 0.3,
        shift: int = 1,
        gain: float = 0.05,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 50,
        lr_decay: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        answers = len(covariates) + len(STYLE) + classes - 1
        self.net = RegionCNN(classes, answers, widths, (kept[0], kept[1]), dropout)
        self._weights: tuple[Tensor, Tensor] | None = None

    def setup(self, stage: str) -> None:
        """Take the contract from the data, and on the first fit what numbers are standardized by."""
        fresh = not self.contract
        super().setup(stage)
        if stage == "fit" and fresh:
            specs = self.data.encoder(list(self.h.covariates)).specs
            if several := [name for name, spec in specs.items() if len(spec.get("levels", "..")) != 2]:
                raise UserError(f"covariate {several[0]!r}: features are learned from numbers and two levels, not more")
            self.contract["answers"] = specs
            volumes = torch.stack([self._volumes(self.data.warped(scan)[1][None])[0] for scan in self._training_scans])
            self.contract["volumes"] = {"mean": volumes.mean(dim=0), "std": volumes.std(dim=0)}

    @property
    def _training_scans(self) -> list[Any]:
        return [scan for scan in self.data.side("train") if scan.name in self.data.styles]

    def _volumes(self, labels: Tensor) -> Tensor:
        """Logarithms of the classes' volumes in ml but the background's, `[B, classes - 1]`, of maps `[B, 1, ...]`."""
        counts = torch.stack([torch.bincount(one.flatten(), minlength=self.h.classes)[1:] for one in labels])
        return (counts.double() * self.grid.voxel_volume / 1000).clamp(min=LEAST).log().float()

    @property
    def grid(self) -> Grid:
        """That images are seen on."""
        return Grid.from_dict(self.contract["grid"])

    def regions(self, template: Template) -> tuple[Tensor, Tensor]:
        """What voxels count in the mean of each of the template's classes (`RegionCNN.weights`), kept.

        Raises:
            UserError: if it is another template than the one that was trained with.
        """
        if template.hash != self.contract["template"]["hash"]:
            raise UserError(f"these features are of another template than {template.name}")
        if self._weights is None:
            labels = template.to(self.grid).labels
            assert labels is not None
            self._weights = self.net.weights(F.one_hot(labels[0], int(self.h.classes)).permute(3, 0, 1, 2).float())
        fine, coarse = self._weights
        self._weights = fine.to(self.device), coarse.to(self.device)
        return self._weights

    def _targets(self, covariates: Sequence[Mapping[str, Any]], labels: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be answered, `[B, A]`, and where it is known."""
        rows = []
        for known in covariates:
            row = []
            for name, spec in self.contract["answers"].items():
                value = known.get(name)
                if "levels" in spec:
                    row.append(float(spec["levels"].index(value)) if value in spec["levels"] else float("nan"))
                else:
                    row.append((float(value) - spec["mean"]) / spec["std"] if value is not None else float("nan"))
            rows.append(row)
        volumes = self.contract["volumes"]
        mean, std = (volumes[k].to(self.device) for k in ("mean", "std"))
        scaled = (self._volumes(labels).to(self.device) - mean) / std.clamp(min=1e-3)
        targets = torch.cat([torch.tensor(rows, device=self.device, dtype=torch.float32), scaled], dim=1)
        return targets.nan_to_num(), ~targets.isnan()

    @property
    def _levels(self) -> list[int]:
        """Columns of the answers that are of two levels."""
        return [k for k, spec in enumerate(self.contract["answers"].values()) if "levels" in spec]

    def _loss(self, answers: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """Mean of the covariates' errors, of the style's, and of the volumes', equally."""
        each = (answers - targets).square()
        for k in self._levels:
            each[:, k] = F.binary_cross_entropy_with_logits(answers[:, k], targets[:, k], reduction="none")
        sizes = [1] * len(self.h.covariates) + [len(STYLE), int(self.h.classes) - 1]
        parts = zip(each.split(sizes, dim=1), known.split(sizes, dim=1), strict=True)
        return torch.stack([(e * k).sum() / k.sum().clamp(min=1) for e, k in parts]).mean()

    def _varied(self, batch: Mapping[str, Any], images: Tensor) -> Tensor:
        """Images moved by whole voxels and multiplied, each by its own seed."""
        draws = SampleNoise(batch, images, stream=2).uniform(4)
        reach = int(self.h.shift)
        moves = (draws[:, :3] * (2 * reach + 1)).long().clamp(max=2 * reach) - reach
        gains = 1 + self.h.gain * (2 * draws[:, 3] - 1)
        moved = [torch.roll(x, m.tolist(), (1, 2, 3)) for x, m in zip(images, moves, strict=True)]
        return (torch.stack(moved) * gains.view(-1, 1, 1, 1, 1)).clamp(max=1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = self._varied(batch, batch["fixed"])
        answers = self.net(x, self.regions(self.data.template)).float()
        loss = self._loss(answers, *self._targets(batch["covariates"], batch["moving_labels"]))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """The loss, each number's error in its unit, the share of levels that are right, volumes' squared error."""
        x = batch["fixed"]
        answers = self.net(x, self.regions(self.data.template)).float()
        targets, known = self._targets(batch["covariates"], batch["moving_labels"])
        values = {"loss": self._loss(answers, targets, known)}
        for k, name in enumerate(self.h.covariates):
            there, spec = known[:, k], self.contract["answers"][name]
            if there.any() and "levels" in spec:
                values[f"{name}_accuracy"] = ((answers[:, k] > 0) == (targets[:, k] > 0.5))[there].float().mean()
            elif there.any():
                values[f"{name}_error"] = (answers - targets)[there, k].abs().mean() * spec["std"]
        values["volumes_error"] = (answers - targets)[:, -(int(self.h.classes) - 1) :].square().mean()
        for name, value in values.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss", batch_size=len(x), sync_dist=True)

    @full_precision
    @torch.no_grad()
    def seen(self, image: Tensor, template: Template) -> tuple[Tensor, dict[str, float]]:
        """Features `[F]` of an image `[1, D, H, W]` on the grid, and what is answered: numbers in their units, of two
        levels the probability of the second, volumes in ml by their class."""
        means = self.net.means(image[None].float().to(self.device), self.regions(template))
        features = self.net.standardized(means)
        answers = self.net.answer(features)[0].double().cpu()
        found: dict[str, float] = {}
        for value, (name, spec) in zip(answers.tolist(), self.contract["answers"].items(), strict=False):
            level = "levels" in spec
            found[name] = torch.tensor(value).sigmoid().item() if level else spec["mean"] + spec["std"] * value
        volumes = self.contract["volumes"]
        logs = volumes["mean"].double() + volumes["std"].double() * answers[len(found) :]
        return features[0].cpu(), found | dict(zip(template.classes[1:], logs.exp().tolist(), strict=True))

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.h.lr, weight_decay=self.h.weight_decay)

    def example(self) -> None:
        """There is no deformation to draw."""
        return None
