"""People on two sides: nobody on both, nobody lost."""

import shutil
import warnings
from pathlib import Path

import pytest

from cortexgen.benchmark import cohorts
from cortexgen.benchmark.cohorts import divide, part, without_held_out
from cortexgen.data.cohort import read_cohort
from cortexgen.data.cohorts import all_scans, folders_of, read_cohorts
from cortexgen.errors import UserError


def subjects(*folders: Path) -> set[str]:
    return {scan.subject for folder in folders for scan in read_cohort(folder)}


@pytest.mark.parametrize("patterns, expected", [(["0002", "*4"], {"sub-0002", "sub-0004"}), (["sub-000[135]"], None)])
def test_each_is_on_one_side(cohort: Path, tmp_path: Path, patterns: list[str], expected: set[str] | None) -> None:
    sides = part(divide(cohort, patterns), tmp_path)
    train, held_out = subjects(*sides.train), subjects(*sides.held_out)
    assert held_out == (expected or {"sub-0001", "sub-0003", "sub-0005"})
    assert train | held_out == subjects(cohort) and not train & held_out
    assert (sides.trained, sides.measured) == (len(train), len(held_out))


def test_images_labels_and_covariates_are_the_cohorts(cohort: Path, tmp_path: Path) -> None:
    sides = part(divide(cohort, ["*2", "*3"]), tmp_path)
    before = {scan.name: scan for scan in read_cohort(cohort)}
    for scan in read_cohort(sides.held_out[0]):
        own = before[scan.name]
        assert scan.image.resolve() == own.image.resolve() and scan.covariates == own.covariates
        assert scan.labels is not None and own.labels is not None and scan.labels.resolve() == own.labels.resolve()
    part(divide(cohort, ["*4", "*5"]), tmp_path)  # again, otherwise
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
    sides = part(divide([cohort, other], ["x*"]), tmp_path / "out")
    assert [folder.name for folder in sides.train] == [cohort.name] and sides.trained == 5
    assert [folder.name for folder in sides.held_out] == ["other"] and sides.measured == 2


@pytest.mark.parametrize(
    "patterns, said", [(["0009"], "0009 fits no subject"), (["*1"], "1 subject"), (["*"], "0 sub")]
)
def test_a_side_needs_people(cohort: Path, patterns: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        divide(cohort, patterns)


def test_registrations_of_held_out_people_are_not_learned_from(
    cohort: Path, registered: tuple[Path, Path], tmp_path: Path
) -> None:
    sides = part(divide(cohort, ["*2", "*3"]), tmp_path / "sides")
    found = without_held_out(registered[1], sides, tmp_path / "registered")
    assert {path.name for path in found.glob("sub-*")} == {"sub-0001", "sub-0004", "sub-0005"}
    assert (found / "registration.tsv").is_file()
    with pytest.raises(UserError, match="holds none of the 3 people"):
        without_held_out(tmp_path / "sides" / "held-out" / cohort.name, sides, tmp_path / "none")


def test_an_id_of_two_cohorts_is_on_one_side_and_registered_under_its_name_among_them(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohorts, "SHARE", 0.5)
    other = tmp_path / "other"
    shutil.copytree(cohort, other)
    shutil.rmtree(other / "sub-0001")
    (other / "sub-0002").rename(other / "sub-0011")
    for file in (other / "sub-0011").rglob("sub-0002*"):
        file.rename(file.with_name(file.name.replace("sub-0002", "sub-0011")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for patterns in ([], ["*3", "*5"]):
            sides = part(divide([cohort, other], patterns), tmp_path / "sides")
            assert not subjects(*sides.train) & subjects(*sides.held_out)
        names = {scan.subject for scan in all_scans(read_cohorts(folders_of([cohort, other]), read_cohort))}
        for name in names:
            (tmp_path / "registered" / name).mkdir(parents=True)
        found = without_held_out(tmp_path / "registered", sides, tmp_path / "kept")
    kept = {path.name for path in found.glob("sub-*")}
    assert kept == {name for name in names if name[-1] not in "35"}
    assert "sub-other0004" in kept and "sub-0011" in kept
