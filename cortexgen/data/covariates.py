"""Covariates of a subject as the vector that conditions a network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io.participants import spelt
from cortexgen.io.tables import column_name
from cortexgen.spatial.precision import full_precision

HEAD_SIZE = "brain_volume_ml"  # the covariate that images of native size are scaled by
AGE, ENOUGH = "age", 30  # its effects are curved: ventricles grow late; so many people show that
DIGITS = 6  # of a covariate that is read from regressors, which are in float32
SLOTS = 8  # of the vector for each covariate: a value or a one-hot level, the last one says "known"


class CovariateEncoder:
    """Numbers are standardized, categories one-hot; an unknown value is all zeros, as is "unconditional".

    Arguments:
        specs: for each covariate `{"mean", "std", "min", "max"}`, or `{"levels": [...], "shares": [...]}`. A number
            with "skew", its standardized mean cube, has a parabola's effects, one without a line's.
    """

    def __init__(self, specs: Mapping[str, dict[str, Any]]) -> None:
        self.specs = dict(specs)

    @classmethod
    def fit(cls, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> "CovariateEncoder":
        """Learn means, deviations and levels from a cohort's rows.

        Raises:
            UserError: if a covariate is in no row, is constant, or has more levels than fit.
        """
        specs: dict[str, dict[str, Any]] = {}
        for name in names:
            values = [value for row in rows if (value := _of(row, name)) is not None]
            if not values:
                columns = sorted({key for row in rows for key in row})
                known = f"participants.tsv has {', '.join(columns)}" if columns else "there is no participants.tsv"
                raise UserError(f"covariate {name!r}: no value for it; {known}")
            if all(isinstance(v, float | int) for v in values):
                spec = {key: float(getattr(np, key)(values)) for key in ("mean", "std", "min", "max")}
                if spec["min"] == spec["max"]:
                    raise UserError(f"covariate {name!r}: every subject has {spec['min']:g}")
                if name == AGE and len(values) >= ENOUGH:
                    spec["skew"] = float(np.mean(((np.array(values) - spec["mean"]) / spec["std"]) ** 3))
                specs[name] = spec
                continue
            texts = [str(spelt(v)) for v in values]
            levels = sorted(set(texts))
            if not 1 < len(levels) < SLOTS:
                raise UserError(f"covariate {name!r}: {len(levels)} levels; between 2 and {SLOTS - 1} can be encoded")
            shares = [texts.count(level) / len(texts) for level in levels]
            specs[name] = {"levels": levels, "shares": shares}
        return cls(specs)

    def encode(self, rows: Sequence[Mapping[str, Any]], device: torch.device | str | None = None) -> Tensor:
        """Rows to vectors `[B, 8 n]`; what a row doesn't have is unknown.

        Raises:
            UserError: for a level that was not in the cohort.
        """
        out = torch.zeros(len(rows), len(self.specs), SLOTS)
        for b, row in enumerate(rows):
            for i, (name, spec) in enumerate(self.specs.items()):
                value = _of(row, name)
                if value is None:
                    continue
                if "levels" not in spec:
                    out[b, i, 0] = (_number(name, value) - spec["mean"]) / spec["std"]
                elif (level := str(spelt(value))) in spec["levels"]:
                    out[b, i, spec["levels"].index(level)] = 1
                else:
                    raise UserError(f"{name}: {value!r} is none of {', '.join(spec['levels'])}")
                out[b, i, -1] = 1
        return out.flatten(1).to(device)

    def known(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What of a row there is a place for in `encode`: no other names, and no other levels than the cohort's."""
        found = {name: value for name in self.specs if (value := _of(row, name)) is not None}
        return {k: v for k, v in found.items() if str(spelt(v)) in self.specs[k].get("levels", [str(spelt(v))])}

    def columns(self) -> dict[str, int]:
        """The column of each number in the design, by name; a square's comes next."""
        out, column = {}, 0
        for name, spec in self.specs.items():
            if "levels" not in spec:
                out[name] = column
            column += _regressors(spec)
        return out

    def design(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[B, 8 n]` of `encode` as regressors of mean 0 in the cohort, `[B, q]`, and which are known.

        A number x gives x, and age `x² - skew x - 1` too, which the cohort's x doesn't correlate with.
        """
        values, known = [], []
        for spec, slots in zip(self.specs.values(), vectors.split(SLOTS, dim=1), strict=True):
            here, count = slots[:, -1:], _regressors(spec)
            if "levels" in spec:
                shares = torch.tensor(spec.get("shares", [0.0] * (count + 1))[:count], device=vectors.device)
                value = slots[:, :count] - shares
            else:
                x = slots[:, :1]
                value = torch.cat([x, x.square() - spec.get("skew", 0.0) * x - 1], dim=1)[:, :count]
            values.append(value * here)
            known.append((here > 0).expand(-1, count))
        return torch.cat(values, dim=1), torch.cat(known, dim=1)

    def covariates(self, design: Tensor) -> dict[str, float | str]:
        """Covariates that regressors `[q]` of `design` are of: a number in the cohort's range, the likeliest level.

        Numbers have six digits.
        """
        out: dict[str, float | str] = {}
        column = 0
        for name, spec in self.specs.items():
            values = design[column : column + _regressors(spec)].double().cpu()
            column += len(values)
            if "levels" in spec:
                shares = values + torch.tensor(spec.get("shares", [0.0] * (len(values) + 1))[: len(values)])
                out[name] = spec["levels"][int(torch.cat([shares, 1 - shares.sum(dim=0, keepdim=True)]).argmax())]
            else:
                value = min(max(spec["mean"] + spec["std"] * float(values[0]), spec["min"]), spec["max"])
                out[name] = float(f"{value:.{DIGITS}g}")
        return out

    def check(self, conditions: Mapping[str, Any]) -> list[str]:
        """Look at values to condition on; returns warnings for those outside the cohort's range.

        Raises:
            UserError: for a name the weights don't know, a number expected, or an unknown level.
        """
        warnings = []
        for name, value in conditions.items():
            if name not in self.specs:
                known = ", ".join(self.specs) or "none: they are unconditional"
                raise UserError(f"{name!r} is not a covariate of these weights ({known})")
            spec = self.specs[name]
            if "levels" in spec:
                continue
            number = _number(name, value)
            if not spec["min"] <= number <= spec["max"]:
                warnings.append(f"{name} {number:g} lies outside the cohort's range {spec['min']:g} to {spec['max']:g}")
        self.encode([conditions])
        return warnings


def _of(row: Mapping[str, Any], name: str) -> Any:
    """A row's covariate, whose column may be spelt otherwise in the table: "BMI" is "bmi"."""
    return row[name] if name in row else row.get(column_name(name))


def _regressors(spec: Mapping[str, Any]) -> int:
    """How many a covariate has."""
    return len(spec["levels"]) - 1 if "levels" in spec else 1 + ("skew" in spec)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise UserError(f"{name}: expected a number, got {value!r}")
    return number


@full_precision
def complete(values: Tensor, known: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """What regressors with gaps are expected to be: `E[d | d_known]` of a joint Gaussian of mean 0.

    Arguments:
        values, known: `[B, q]`, of `CovariateEncoder.design`.
        covariance: `[q, q]`, of the cohort's regressors.

    Returns:
        The regressors `[B, q]`, and the deviation that is left of each, 0 where known.
    """
    out, left = values.clone(), torch.zeros_like(values)
    for b, (row, here) in enumerate(zip(values, known, strict=True)):
        if here.all():
            continue
        cross = covariance[~here][:, here]
        gain = cross @ torch.linalg.pinv(covariance[here][:, here]) if here.any() else cross
        out[b, ~here] = gain @ row[here]
        left[b, ~here] = (covariance[~here][:, ~here] - gain @ cross.T).diagonal().clamp(min=0).sqrt()
    return out, left
