"""Damages of known severity, put in order by the measures that are there to see them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.evaluation.anatomy import METRICS, region_rows
from cortexgen.evaluation.brain import Anatomy, collect, measure_brain
from cortexgen.metrics.resampling import Interval
from cortexgen.simulation.cohort import simulate_cohort

CLASSES = dict(enumerate(load_template().classes))
VENTRICLE = 3
SEVERITIES: dict[str, tuple[float, ...]] = {
    "blur": (2, 4, 8),
    "noise": (0.03, 0.08, 0.16),
    "shift": (4, 8, 12),
    "collapse": (3, 2, 1),
    "ventricles": (1.4, 2.0),
}


@pytest.fixture(scope="module")
def damages() -> ModuleType:
    """The benchmark's functions."""
    path = Path(__file__).parents[1] / "benchmarks" / "damages.py"
    spec = importlib.util.spec_from_file_location("damages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["damages"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight simulated brains at 4 mm, every second one real."""
    root = tmp_path_factory.mktemp("damages") / "cohort"
    simulate_cohort(root, subjects=8, seed=2, spacing=4.0, progress=False)
    return root


def _anatomy(module: ModuleType, members: list[object]) -> Anatomy:
    measured = {}
    for i, member in enumerate(members):
        brain = module.make(member)
        measured[i] = measure_brain(brain.image, brain.labels, CLASSES, brain.grid)
    return collect(measured, CLASSES, range(1, len(CLASSES)))


@pytest.mark.parametrize("damage", SEVERITIES)
def test_worse_damage_has_a_worse_number(damages: ModuleType, cohort: Path, damage: str) -> None:
    scans = read_cohort(cohort)
    real, other = scans[::2], scans[1::2]
    reference = _anatomy(damages, [damages.Member(scan.name, scan, damages.untouched) for scan in real])
    sets = [[damages.Member(scan.name, scan, damages.untouched) for scan in other]]
    sets += [damages.members(damage, severity, real, other, VENTRICLE) for severity in SEVERITIES[damage]]
    measure, sign = damages.SEEN_BY[damage]
    values = []
    for members in sets:
        found = _anatomy(damages, members)
        if measure == damages.VENTRICLE:
            row = next(row for row in region_rows(reference, found, 2) if row["region"] == measure)
            assert isinstance(row["d"], Interval)
            values.append(sign * row["d"].value)
        else:
            metric = next(m for m in METRICS if (m.name, m.protocol) == (measure, "standard"))
            values.append(sign * metric.statistic(metric.rows(reference), metric.rows(found)))
    assert values == sorted(values)
    assert len(set(values)) == len(values)
