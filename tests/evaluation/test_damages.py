"""Damages of known severity, put in order by the measures that are there to see them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.evaluation.anatomy import METRICS, region_rows
from cortexgen.evaluation.brain import Anatomy, collect, measure_brain
from cortexgen.metrics.resampling import Interval
from cortexgen.simulation.cohort import simulate_cohort

CLASSES = dict(enumerate(load_template().classes))
NUMBERS = {name: number for number, name in CLASSES.items()}
SEVERITIES: dict[str, tuple[float, ...]] = {
    "blur": (2, 4, 8),
    "noise": (0.03, 0.08, 0.16),
    "shift": (4, 8, 12),
    "collapse": (3, 2, 1),
    "ventricles": (1.4, 2.0),
    "contrast": (15, 40, 80),
}


@pytest.fixture(scope="module")
def damages() -> ModuleType:
    """The benchmark's functions."""
    path = Path(__file__).parents[1] / "benchmarks" / "damages.py"
    sys.path.insert(0, str(path.parent))  # as when it is run
    spec = importlib.util.spec_from_file_location("damages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["damages"] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(path.parent))
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
    sets += [damages.members(damage, severity, real, other, NUMBERS) for severity in SEVERITIES[damage]]
    measure, sign = damages.SEEN_BY[damage][0]
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


def test_a_smooth_cortex_has_a_shorter_border_and_the_inside_stays(damages: ModuleType, cohort: Path) -> None:
    scan, lengths = read_cohort(cohort)[0], []
    before = damages.make(damages.Member(scan.name, scan, damages.untouched))
    cortex, white = NUMBERS["Cerebral-Cortex"], NUMBERS["Cerebral-White-Matter"]
    for mm in (0.1, 4, 8):
        (member,) = damages.members("smooth", mm, [], [scan], NUMBERS)
        after = damages.make(member)
        others = ~torch.isin(before.labels, torch.tensor([cortex, white]))
        assert after.labels[others].equal(before.labels[others])
        pairs = zip(*((after.labels, after.labels.roll(1, axis)) for axis in (1, 2, 3)), strict=True)
        now, beside = (torch.stack(each) for each in pairs)
        lengths.append(int(((now == cortex) & (beside == white)).sum() + ((now == white) & (beside == cortex)).sum()))
        far = torch.nn.functional.max_pool3d((before.labels == cortex).float()[None], 13, 1, 6)[0] == 0
        if mm == 4:  # further than four sigma
            torch.testing.assert_close(after.image[far], before.image[far], atol=1e-3, rtol=0)
    assert lengths[0] > lengths[1] > lengths[2]


def test_as_many_labels_are_wrong_as_asked_for(damages: ModuleType, cohort: Path) -> None:
    scan = read_cohort(cohort)[0]
    labels = damages.make(damages.Member(scan.name, scan, damages.untouched)).labels
    around = [labels.roll(step, axis) for axis in (1, 2, 3) for step in (-1, 1)]
    differ = sum((labels != each)[labels > 0].double().mean() for each in around) / 6  # of the neighbours
    for percent in (15, 40):
        (member,) = damages.members("labels", percent, [], [scan], NUMBERS)
        wrong = (damages.make(member).labels != labels)[labels > 0].double().mean()
        assert float(wrong) == pytest.approx(percent / 100 * float(differ), rel=0.1)


def test_others_have_the_labels_of_another_subject(damages: ModuleType, cohort: Path) -> None:
    other = read_cohort(cohort)[:4]
    whole = [damages.make(damages.Member(s.name, s, damages.untouched)) for s in other]
    found = [damages.make(member) for member in damages.members("others", 50, [], other, NUMBERS)]
    assert all(a.image.equal(b.image) for a, b in zip(found, whole, strict=True))
    assert [found[i].labels.equal(whole[(i + 1) % 4].labels) for i in range(4)] == [True, True, False, False]
    assert [found[i].labels.equal(whole[i].labels) for i in range(4)] == [False, False, True, True]


def test_ages_are_said_to_be_what_they_are_not(damages: ModuleType, cohort: Path, tmp_path: Path) -> None:
    other = read_cohort(cohort)
    spans = []
    for severity in (33, 67, 100):
        members = damages.members("ages", severity, [], other, NUMBERS)
        assert [m.asked.name for m in members] == [scan.name for scan in other]
        ages = [m.scan.covariates["age"] for m in members]
        spans.append(max(ages) - min(ages))
    assert spans[0] >= spans[1] >= spans[2] and spans[0] > spans[2] == 0
