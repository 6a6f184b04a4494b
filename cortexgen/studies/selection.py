"""Which scans of a study are meant, by the options of `find_study`."""

import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any

from cortexgen.errors import UserError
from cortexgen.io.paths import label
from cortexgen.io.tables import column_name, grouped
from cortexgen.studies.candidates import Candidate

NUMBER = r"[+-]?\d+(?:\.\d+)?"
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a covariate is what is wanted: a text or number, a range "50-70", or a bound such as ">=50"."""
    if value is None:
        return False
    if isinstance(value, str) and re.fullmatch(NUMBER, value):
        value = float(value)  # in a column that has texts, too
    if isinstance(value, float) and isinstance(wanted, str):
        if found := re.fullmatch(rf"\s*({NUMBER})\s*-\s*({NUMBER})\s*", wanted):
            return float(found[1]) <= value <= float(found[2])
        if found := re.fullmatch(rf"\s*(>=|<=|>|<)\s*({NUMBER})\s*", wanted):
            return COMPARE[found[1]](value, float(found[2]))
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return str(value).strip().lower() == str(wanted).strip().lower()


def _there(values: Sequence[Any]) -> str:
    """What values there are, the most frequent first."""
    counts = Counter(f"{v:g}" if isinstance(v, float) else str(v) for v in values if v not in (None, ""))
    return ", ".join(f"{v} ({n})" for v, n in counts.most_common(12)) + (", ..." if len(counts) > 12 else "") or "none"


def choose_where(candidates: list[Candidate], where: Mapping[str, Any]) -> list[Candidate]:
    """Keep the candidates whose covariates fit every entry; those that no table knows stay as the problems they are.

    Raises:
        UserError: if a column is unknown, or an entry leaves nobody.
    """
    columns = sorted({key for c in candidates for key in c.covariates})
    for key, wanted in where.items():
        column = column_name(key)
        if column not in columns:
            raise UserError(f"where: no column {key!r}; there are {', '.join(columns) or 'none: no table was found'}")
        several = wanted if isinstance(wanted, list | tuple) else [wanted]
        before = [c.covariates[column] for c in candidates if column in c.covariates]
        fits = {value: any(_fits(value, w) for w in several) for value in [None, *before]}
        candidates = [c for c in candidates if fits[c.covariates.get(column)] or (c.problem and not c.covariates)]
        if not any(c.covariates for c in candidates):
            raise UserError(f"where: nobody has {key} {wanted}; there are {_there(before)}")
    return candidates


def choose_participants(candidates: list[Candidate], participants: Sequence[str]) -> list[Candidate]:
    """Keep some subjects, by their labels, with or without "sub-".

    Raises:
        UserError: if one is unknown.
    """
    wanted = {label(name.removeprefix("sub-")) for name in participants}
    unknown = sorted(wanted - {c.subject for c in candidates})
    if unknown:
        raise UserError(f"participants: no {', '.join(unknown)}; there are {_there([c.subject for c in candidates])}")
    return [c for c in candidates if c.subject in wanted]


def choose_visits(candidates: list[Candidate], visits: str | Sequence[str]) -> list[Candidate]:
    """Keep some visits, by their names, or those meant by "baseline" or "first".

    Raises:
        UserError: if a visit is unknown.
    """
    names = [visits] if isinstance(visits, str) else list(visits)
    if names == ["first"]:
        return _first(candidates)
    if names == ["baseline"] and any(c.baseline for c in candidates):
        return _first([c for c in candidates if c.baseline])
    known = {c.session.lower() for c in candidates}
    wanted = {label(n.removeprefix("ses-")).lower(): n for n in names}
    for key, name in wanted.items():
        if key not in known:
            found = _there([c.session for c in candidates])
            raise UserError(f"visits: no visit {name!r}; there are {found}, and first for the earliest of each subject")
    return [c for c in candidates if c.session.lower() in wanted]


def _first(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates of each subject's earliest visit that can be used."""
    earliest: dict[str, Candidate] = {}
    for c in sorted(candidates, key=lambda c: c.order):
        held = earliest.setdefault(c.subject, c)
        if held.problem and not c.problem:
            earliest[c.subject] = c
    return [c for c in candidates if c.session == earliest[c.subject].session]


def choose_images(candidates: list[Candidate], patterns: Sequence[str]) -> list[Candidate]:
    """Of each scan's candidates, those that fit the first pattern that any of them fits; without one, what is usual.

    Raises:
        UserError: if no image fits.
    """
    images = [c for c in candidates if not c.absent]
    best: dict[str, list[Candidate]] = {}
    for pattern in patterns:
        best = grouped([c for c in images if fnmatchcase(c.where.lower(), pattern.lower())], attrgetter("name")) | best
    chosen = [c for group in best.values() for c in group] if patterns else [c for c in images if c.usual]
    if not chosen:
        what = f"fits {' or '.join(map(repr, patterns))}" if patterns else "is a T1w by its name"
        shown = ", ".join(c.where for c in images[:3])
        raise UserError(f"image: none of {len(images)} images {what} ({shown}, ...); give a pattern of their paths")
    return chosen + [c for c in candidates if c.absent]
