"""People on two sides: nobody on both, nobody lost."""

from pathlib import Path

import pytest

from cortexgen.benchmark.cohorts import part, without_held_out
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError


def subjects(*folders: Path) -> set[str]:
    return {scan.subject for folder in folders for scan in read_cohort(folder)}


@pytest.mark.parametrize("patterns, expected", [(["0002", "*4"], {"sub-0002", "sub-0004"}), (["sub-000[135]"], None)])
def test_each_is_on_one_side(cohort: Path, tmp_path: Path, patterns: list[str], expected: set[str] | None) -> None:
    sides = part(cohort, tmp_path, patterns)
    train, held_out = subjects(*sides.train), subjects(*sides.held_out)
    assert held_out == (expected or {"sub-0001", "sub-0003", "sub-0005"})
    assert train | held_out == subjects(cohort) and not train & held_out
    assert (sides.trained, sides.measured) == (len(train), len(held_out))


def test_images_labels_and_covariates_are_the_cohorts(cohort: Path, tmp_path: Path) -> None:
    sides = part(cohort, tmp_path, ["*2", "*3"])
    before = {scan.name: scan for scan in read_cohort(cohort)}
    for scan in read_cohort(sides.held_out[0]):
        own = before[scan.name]
        assert scan.image.resolve() == own.image.resolve() and scan.covariates == own.covariates
        assert scan.labels is not None and own.labels is not None and scan.labels.resolve() == own.labels.resolve()
    part(cohort, tmp_path, ["*4", "*5"])  # again, otherwise
    assert subjects(sides.held_out[0]) == {"sub-0004", "sub-0005"}
    assert subjects(cohort) == {f"sub-000{k}" for k in range(1, 6)}


def test_a_cohort_may_be_on_one_side_alone(cohort: Path, tmp_path: Path) -> None:
    from cortexgen.simulation import simulate_cohort

    other = tmp_path / "other"
    simulate_cohort(other, subjects=2, seed=9, spacing=8.0, progress=False)
    for path in sorted(other.glob("sub-*")):
        for file in sorted(path.rglob("sub-*")):
            file.rename(file.with_name(file.name.replace("sub-", "sub-x")))
        path.rename(path.with_name(path.name.replace("sub-", "sub-x")))
    sides = part([cohort, other], tmp_path / "out", ["x*"])
    assert [folder.name for folder in sides.train] == [cohort.name] and sides.trained == 5
    assert [folder.name for folder in sides.held_out] == ["other"] and sides.measured == 2


@pytest.mark.parametrize(
    "patterns, said", [(["0009"], "0009 fits no subject"), (["*1"], "1 subject"), (["*"], "0 sub")]
)
def test_a_side_needs_people(cohort: Path, tmp_path: Path, patterns: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        part(cohort, tmp_path, patterns)


def test_registrations_of_held_out_people_are_not_learned_from(
    cohort: Path, registered: tuple[Path, Path], tmp_path: Path
) -> None:
    sides = part(cohort, tmp_path / "sides", ["*2", "*3"])
    found = without_held_out(registered[1], sides, tmp_path / "registered")
    assert {path.name for path in found.glob("sub-*")} == {"sub-0001", "sub-0004", "sub-0005"}
    assert (found / "registration.tsv").is_file()
    with pytest.raises(UserError, match="holds none of the 3 people"):
        without_held_out(tmp_path / "sides" / "held-out" / cohort.name, sides, tmp_path / "none")
