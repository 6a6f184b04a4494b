from pathlib import Path

import pytest
import torch

from cortexgen.atlas.template import Template, load_template
from cortexgen.errors import UserError
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import read_tsv
from cortexgen.simulation.cohort import prepare, simulate_cohort, simulate_subject
from cortexgen.simulation.shape import INTEGRATION_STEPS, VARIATION, Anatomy, Subject
from cortexgen.spatial import folded, identity, integrate, resample_field, sample, warp_labels

SPACING = 4.0


@pytest.fixture(scope="module")
def template() -> Template:
    full = load_template()
    return full.to(full.grid.at_spacing(2.0))


@pytest.fixture(scope="module")
def anatomy(template: Template) -> Anatomy:
    return prepare(template)


@pytest.fixture(scope="module")
def subjects(anatomy: Anatomy) -> list[Subject]:
    return [simulate_subject(anatomy, seed=0, index=k) for k in range(20)]


@pytest.fixture(scope="module")
def cohort(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated")
    simulate_cohort(out, subjects=2, seed=3, spacing=SPACING, template=template, progress=False)
    return out


def effects(subjects: list[Subject], outcome: torch.Tensor) -> tuple[float, float]:
    """Least-squares effects of a decade of age, and of men over women."""
    rows = [[1.0, (s.age - 50) / 10, float(s.sex == "M")] for s in subjects]
    _, age, sex = torch.linalg.lstsq(torch.tensor(rows), outcome[:, None]).solution[:, 0].tolist()
    return age, sex


def test_a_subject_depends_on_seed_and_index_alone(anatomy: Anatomy, subjects: list[Subject]) -> None:
    again = simulate_subject(anatomy, seed=0, index=5)
    assert torch.equal(again.velocity, subjects[5].velocity)
    assert (again.age, again.sex, again.brain_volume_ml) == (
        subjects[5].age,
        subjects[5].sex,
        subjects[5].brain_volume_ml,
    )
    other = simulate_subject(anatomy, seed=1, index=5)
    assert not torch.equal(other.velocity, again.velocity)


def test_no_subject_is_folded_or_moves_the_rim(anatomy: Anatomy, subjects: list[Subject]) -> None:
    for subject in subjects[:6]:
        for sign in (1, -1):
            assert folded(integrate(sign * subject.velocity[None], INTEGRATION_STEPS)).item() == 0
        assert all(subject.velocity.select(axis, end).abs().max() < 1e-6 for axis in (1, 2, 3) for end in (0, -1))


def test_displacement_in_the_brain_is_of_a_real_size(anatomy: Anatomy, subjects: list[Subject]) -> None:
    brain = anatomy.fractions.sum(dim=0) > 0.5
    length = [integrate(s.velocity[None])[0].norm(dim=0)[brain].mean() * anatomy.grid.spacing[0] for s in subjects[:8]]
    assert 2 < torch.stack(length).mean() < 4


def test_volumes_vary_as_in_real_brains(anatomy: Anatomy, subjects: list[Subject]) -> None:
    volumes = []
    for subject in subjects:
        positions = identity(anatomy.grid.shape) + integrate(subject.velocity[None], INTEGRATION_STEPS)
        volumes.append(sample(anatomy.fractions[None], positions)[0].sum(dim=(1, 2, 3)))
    deviation = torch.stack(volumes).log().std(dim=0)
    assert len(anatomy.classes) == 17
    for name, found in zip(anatomy.classes, deviation.tolist(), strict=False):
        assert 0.5 < found / VARIATION[name][0] < 2, name


def test_growth_is_that_of_the_warped_regions(anatomy: Anatomy, subjects: list[Subject]) -> None:
    positions = identity(anatomy.grid.shape) + integrate(subjects[0].velocity[None], INTEGRATION_STEPS)
    warped = sample(anatomy.fractions[None], positions)[0].sum(dim=(1, 2, 3))
    torch.testing.assert_close(
        (warped / anatomy.fractions.sum(dim=(1, 2, 3))).log(), subjects[0].log_growth, atol=0.1, rtol=0
    )


def test_age_moves_ventricles_and_cortex(anatomy: Anatomy, subjects: list[Subject]) -> None:
    growth = torch.stack([s.log_growth for s in subjects])
    for name, low, high in (("Lateral-Ventricle", 0.06, 0.18), ("Cerebral-Cortex", -0.03, -0.01)):
        age, _ = effects(subjects, growth[:, anatomy.classes.index(name)])
        assert low < age < high


def test_sex_moves_size(anatomy: Anatomy, subjects: list[Subject]) -> None:
    volumes = anatomy.fractions.sum(dim=(1, 2, 3))
    whole = torch.stack([(s.log_growth.exp() * volumes).sum().log() for s in subjects])
    native = torch.tensor([s.brain_volume_ml for s in subjects]).log()
    assert 0.01 < effects(subjects, whole)[1] < 0.05
    assert 0.08 < effects(subjects, native)[1] < 0.22


def test_only_what_is_given_changes(anatomy: Anatomy) -> None:
    young, old = (simulate_subject(anatomy, seed=0, index=2, age=age, sex="F") for age in (25, 75))
    change = dict(zip(anatomy.classes, (old.log_growth - young.log_growth).tolist(), strict=False))
    assert change["Lateral-Ventricle"] == pytest.approx(5 * VARIATION["Lateral-Ventricle"][1], abs=0.05)
    assert change["Brain-Stem"] == pytest.approx(0, abs=0.01)


def test_cohort_reads_back_and_the_true_velocity_gives_the_labels(cohort: Path, template: Template) -> None:
    rows = read_tsv(cohort / "participants.tsv")
    assert [row["participant_id"] for row in rows] == ["sub-0001", "sub-0002"]
    assert set(rows[0]) == {"participant_id", "age", "sex", "brain_volume_ml"}
    coarse = template.to(template.grid.at_spacing(SPACING))
    stem = "sub-0001/anat/sub-0001_space-MNI152NLin2009aSym"
    image, grid = read_volume(cohort / f"{stem}_res-4_desc-preproc_T1w.nii.gz")
    dseg, _ = read_volume(cohort / f"{stem}_res-4_dseg.nii.gz", labels=True)
    velocity, velocity_grid = read_field(cohort / "truth" / f"{stem}_desc-velocity_field.nii.gz")
    assert grid.matches(coarse.grid)
    assert 0.9 < image.max() <= 1 and image.min() == 0
    field = integrate(velocity[None], INTEGRATION_STEPS)
    field = resample_field(field, velocity_grid.torch_affine, grid.shape, grid.torch_affine)
    assert folded(field).item() == 0
    warped, _ = warp_labels(coarse.labels[None], identity(grid.shape) + field, len(template.classes))
    assert (warped[0] == dseg).float().mean() > 0.999
    assert not torch.equal(coarse.labels, dseg)


def test_resuming_adds_and_redoes_nothing(cohort: Path, template: Template) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cohort.rglob("sub-*.*")}
    victim = next(path for path in before if path.name.endswith("sub-0002_space-MNI152NLin2009aSym_res-4_dseg.nii.gz"))
    victim.unlink()
    simulate_cohort(cohort, subjects=3, seed=3, spacing=SPACING, template=template, progress=False)
    assert victim.read_bytes() == before[victim][1]
    assert all(path.stat().st_mtime_ns == then for path, (then, _) in before.items() if "sub-0001" in path.name)
    assert len(read_tsv(cohort / "participants.tsv")) == 3


def test_a_folder_with_other_content_is_refused(cohort: Path, template: Template, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another simulation"):
        simulate_cohort(cohort, subjects=2, seed=4, spacing=SPACING, template=template, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        simulate_cohort(tmp_path, subjects=1, template=template, progress=False)


def test_a_template_without_known_labels_is_refused(template: Template, tmp_path: Path) -> None:
    bare = Template("bare", template.image, None, (), template.grid, "0")
    with pytest.raises(UserError, match="needs labels"):
        simulate_cohort(tmp_path / "out", subjects=1, template=bare, progress=False)
    assert not (tmp_path / "out").exists()
