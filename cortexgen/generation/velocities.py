"""Where drawn velocities come from: what every distribution of a cohort's fields shares."""

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from cortexgen.atlas.labels import LabelMap
from cortexgen.atlas.template import Template
from cortexgen.data.covariates import HEAD_SIZE, CovariateEncoder, complete
from cortexgen.data.field_statistics import amplitude_of
from cortexgen.errors import UserError
from cortexgen.runner.precision import Precision, arithmetic_name, autocast
from cortexgen.spatial.precision import full_precision

SAMPLING = "sampling"  # in the contract: run-time options that trained weights carry
ALIASES = {"seed": "sample_seed", "resolution": "spacing"}


def numbered_generator(seed: int, index: int, what: str, attempt: int = 0) -> torch.Generator:
    """Random numbers of a sample for a purpose: nothing else than these decides on them."""
    key = f"{seed}:{index}:{attempt}:{what}".encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1)


class Velocities:
    """A distribution of a cohort's velocity fields, given covariates or not.

    Attributes:
        contract: what is known of the cohort: grids, template, mean and scale of the fields, covariates' effects.
        template: the cohort's, should it not be where it was.
        conditions: values of covariates to condition on, such as `{age: 50, sex: F}`, or None.
        sample_seed: sample k depends on this and k alone.
        native_size: draw the size of the head too.
        micro_batch: samples that are drawn in one call; 1 on a CPU and 8 on a GPU unless given.
        spacing: voxel size of the brains in millimetres; the training images' unless given.
        max_redraws: how often a sample that fails its checks is drawn again.
        save_fields: keep the inverse and log |J| of each brain's field, too.
        warped_labels: where labels are fitted to the image, keep what the field alone makes of the template's, too.
        parcellation: other labels of the template to warp.
        precision: of a network, where no trainer says it: bf16, 32, or auto (bf16 where it is fast).
        run_options: what else a sample depends on, names of attributes.
    """

    contract: dict[str, Any]
    template: Template | None = None
    conditions: Mapping[str, Any] | None = None
    sample_seed: int = 0
    native_size: bool = False
    micro_batch: int | None = None
    spacing: float | None = None
    max_redraws: int = 10
    save_fields: bool = False
    warped_labels: bool = False
    parcellation: LabelMap | None = None
    precision: Precision = "auto"
    run_options: Sequence[str] = ()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """That draws."""

    @property
    def encoder(self) -> CovariateEncoder:
        """Of the covariates; its numbers live in the contract."""
        return CovariateEncoder(self.contract.get("covariates", {}))

    def random(self, index: int, attempt: int = 0, what: str = "field") -> torch.Generator:
        """The random numbers of sample `index` of the cohort of `sample_seed`."""
        return numbered_generator(self.sample_seed, index, what, attempt)

    @property
    def batch(self) -> int:
        """Samples that are drawn together."""
        return self.micro_batch or (1 if self.device.type == "cpu" else 8)

    def together(self, index: int) -> range:
        """The samples that sample `index` is drawn with, however many are wanted: so its bytes don't depend on that."""
        first = index // self.batch * self.batch
        return range(first, first + self.batch)

    def arithmetic(self) -> AbstractContextManager:
        """The context that a network draws in."""
        return autocast(self.device, self.precision)

    @property
    def arithmetic_name(self) -> str:
        """Of that context: "bf16" or "32"."""
        return arithmetic_name(self.device, self.precision)

    @abstractmethod
    def weights_hash(self) -> str:
        """sha256 of what samples depend on besides the options."""

    @abstractmethod
    def samples(self, indices: range, attempt: int, conditions: Sequence[Mapping[str, Any]]) -> Tensor:
        """Draw the velocities of one micro-batch, each for its own conditions, `[n, 3, d, h, w]` in voxels.

        Arguments:
            attempt: which draw, should the ones before have failed their checks.
        """

    def sample(self, index: int, attempt: int = 0, conditions: Mapping[str, Any] | None = None) -> Tensor:
        """Draw velocity number `index`, `[3, d, h, w]`, for the conditions given instead of the object's own."""
        indices = self.together(index)
        each = [self.conditions_of(k) if conditions is None else conditions for k in indices]
        return self.samples(indices, attempt, each)[index - indices.start]

    @property
    def rows(self) -> Tensor | None:
        """Regressors of the training people, `[N, q]`; None without covariates.

        None for weights of before, too, whose prior is of whole fields and has in its modes what covariates do that are
        not given.
        """
        return self.contract.get("effects", {}).get("rows")

    @full_precision
    def effect(self, vectors: Tensor, drawn: Tensor | None = None) -> Tensor:
        """What covariates `[B, 8 n]` are expected to change in the mean field, `[B, 3, d, h, w]` in scaled units.

        Arguments:
            drawn: regressors `[B, q]` beyond what is expected.
        """
        values = self._regressors(vectors, drawn)
        return torch.einsum("bq,qcdhw->bcdhw", values, self.contract["effects"]["fields"].to(vectors))

    @full_precision
    def amplitude(self, vectors: Tensor, drawn: Tensor | None = None) -> Tensor:
        """What the deviation of the rest is multiplied by for covariates `[B, 8 n]`, `[B]`; see `effect`."""
        return amplitude_of(self._regressors(vectors, drawn), self.contract["effects"])

    def _regressors(self, vectors: Tensor, drawn: Tensor | None) -> Tensor:
        values, _ = complete(*self.encoder.design(vectors), self.contract["effects"]["covariance"].to(vectors))
        return values if drawn is None else values + drawn

    def drawn(self, indices: Sequence[int], attempt: int, vectors: Tensor | None) -> Tensor | None:
        """Regressors `[B, q]` of what samples' covariates `[B, 8 n]` leave open, beyond what is expected of them.

        They are those of a training person each, less what that one's known ones say.
        """
        if self.rows is None:
            return None
        who = [int(torch.randint(len(self.rows), (), generator=self.random(k, attempt, "who"))) for k in indices]
        values = self.rows[who].to(self.device)
        known = torch.zeros_like(values, dtype=torch.bool) if vectors is None else self.encoder.design(vectors)[1]
        return values - complete(values, known, self.contract["effects"]["covariance"].to(values))[0]

    def person(self, index: int, attempt: int, conditions: Mapping[str, Any]) -> dict[str, Any]:
        """All covariates of a sample: those that it is drawn for, and what the draw made of the others."""
        given = {k: v for k, v in conditions.items() if v is not None}
        vector = self.condition(given)
        drawn = self.drawn([index], attempt, vector)
        if drawn is None:
            return given
        values = torch.zeros_like(drawn)
        if vector is not None:
            values, _ = complete(*self.encoder.design(vector), self.contract["effects"]["covariance"].to(vector))
        return self.encoder.covariates((values + drawn)[0]) | given

    def condition(self, conditions: Mapping[str, Any] | None) -> Tensor | None:
        """The vector `[1, 8 n]` of values to condition on; None for an unconditional sample."""
        chosen = {k: v for k, v in (conditions or {}).items() if v is not None}
        return self.encoder.encode([chosen], self.device) if chosen else None

    def restored(self, x: Tensor) -> Tensor:
        """Scaled fields back in voxels."""
        return x * torch.as_tensor(self.contract["scale"]).to(x) + self.contract["mean"].to(x)

    def conditions_of(self, index: int) -> dict[str, Any]:
        """What sample `index` is drawn for."""
        return self.with_head_size(index) if self.native_size else dict(self.conditions or {})

    def with_head_size(self, index: int) -> dict[str, Any]:
        """The conditions of sample `index` with its brain volume, drawn from the cohort's given the others."""
        chosen = {k: v for k, v in (self.conditions or {}).items() if v is not None}
        if HEAD_SIZE in chosen:
            return chosen
        spec, column = self.encoder.specs[HEAD_SIZE], self.encoder.columns()[HEAD_SIZE]
        vectors = self.encoder.encode([chosen])
        mean, left = complete(*self.encoder.design(vectors), self.contract["effects"]["covariance"])
        draw = torch.randn((), generator=self.random(index, what="head size"))
        value = float(mean[0, column] + left[0, column] * draw.clamp(-3, 3))
        return chosen | {HEAD_SIZE: spec["mean"] + spec["std"] * value}

    def take(self, **options: Any) -> Self:
        """The same with options set, by the names that `cortexgen generate` has for them.

        Raises:
            UserError: if there is no such option, or it can't be met.
        """
        for option, value in options.items():
            name = ALIASES.get(option, option)
            if not hasattr(type(self), name):
                raise UserError(f"{option}: these fields are drawn without it")
            setattr(self, name, value)
        self.check_options()
        return self

    def check_options(self) -> None:
        """See that the options can be met; warns of conditions outside the cohort's range.

        Raises:
            UserError: if not.
        """
        for name in ("num_samples", "micro_batch", *(["steps"] if "steps" in self.run_options else [])):
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise UserError(f"{name}: expected 1 or more, got {value}")
        for name in ("spacing", "guidance", "correction"):
            value = getattr(self, name, None)
            if value is not None and (not isfinite(value) or (name == "spacing" and value <= 0)):
                raise UserError(f"{name}: expected a number{' above zero' * (name == 'spacing')}, got {value:g}")
        if "mean" not in self.contract:
            raise UserError("there are no trained weights to sample from: give --ckpt_path")
        if self.conditions:
            for line in self.encoder.check(self.conditions):
                warnings.warn(line, stacklevel=2)
        if self.native_size and HEAD_SIZE not in self.encoder.specs:
            raise UserError(f"native_size: the weights know no {HEAD_SIZE}; train with that covariate")


class Carried:
    """An attribute of a module: the value that was set, else the one in the module's contract, else a default.

    Setting it to None takes the setting back.

    Arguments:
        default: for weights that carry none.
    """

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.place = name, f"_chosen_{name}"

    def __get__(self, module: Any, owner: type) -> Any:
        if module is None:
            return self
        chosen = module.__dict__.get(self.place)
        return module.contract.get(SAMPLING, {}).get(self.name, self.default) if chosen is None else chosen

    def __set__(self, module: Any, value: Any) -> None:
        module.__dict__[self.place] = value
