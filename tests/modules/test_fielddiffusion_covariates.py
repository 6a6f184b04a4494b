"""Draws given covariates, or some of them, or none, of a cohort whose fields are known effects and noise."""

import json

import numpy as np
import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.data.field_priors import FieldPriors
from cortexgen.data.field_statistics import field_statistics
from cortexgen.data.fields import FieldDataModule
from cortexgen.generation.deformation_model import StatisticalDeformationModel
from cortexgen.io import Grid, write_field, write_volume
from cortexgen.io.bids import sidecar, write_tsv
from cortexgen.modules import FieldDiffusionModule
from cortexgen.spatial import antialias

SHAPE = (5, 6, 7)
GRID = Grid(SHAPE, np.array([[0, 0, 8, -24], [0, 8, 0, -20], [8, 0, 0, -16], [0, 0, 0, 1.0]]))
PEOPLE, DRAWS, NOISE = 80, 400, 0.5
AGES = 20 + 60 * np.linspace(0, 1, PEOPLE) ** 1.5
SEXES = np.array(["F", "M"])[np.random.default_rng(3).integers(0, 2, PEOPLE)]


def smooth(seed):
    noise = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return antialias(noise, (4, 4, 4))[0]


DIRECTION = smooth(1000) / smooth(1000).square().sum().sqrt()


def expected(age, sex):
    """Along the direction: a parabola of age, and more in men."""
    return 0.03 * (age - 50) + 0.002 * (np.asarray(age) - 50) ** 2 + 2.0 * (np.asarray(sex) == "M")


def fields_of(root, wide=1.0):
    """A data module, and each person's place along the direction, `[PEOPLE]`; else men's fields vary `wide` times."""
    write_volume(root / "template" / "tpl-Toy_T1w.nii.gz", torch.rand(1, *SHAPE), GRID)
    template = str(root / "template" / "tpl-Toy_T1w.nii.gz")
    info = {"Template": "Toy", "TemplateHash": load_template(template).hash}
    widths = np.where(SEXES == "M", wide, 1.0)
    places = expected(AGES, SEXES) + NOISE * widths * np.random.default_rng(0).standard_normal(PEOPLE)
    for k, along in enumerate(places):
        other = 0.2 * widths[k] * smooth(k)
        field = other + (along - (other * DIRECTION).sum()) * DIRECTION
        path = root / f"sub-{k:02d}" / "anat" / f"sub-{k:02d}_space-Toy_desc-velocity_field.nii.gz"
        write_field(path, field.float(), GRID)
        sidecar(path).write_text(json.dumps(info | {"IntegrationSteps": 7, "ImageGrid": GRID.to_dict()}))
    people = zip(AGES, SEXES, strict=True)
    rows = [{"participant_id": f"sub-{k:02d}", "age": age, "sex": sex} for k, (age, sex) in enumerate(people)]
    write_tsv(root / "participants.tsv", rows)
    data = FieldDataModule(root, template, val=0.0, mirror=False, cache_dir=root / "cache")
    data.setup("fit")
    return data, places


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return fields_of(tmp_path_factory.mktemp("fields"))


def prior_of(data):
    module = FieldDiffusionModule(
        width=8, multipliers=(1,), spatial_attention=("none",), covariates=["age", "sex"], prior_modes=PEOPLE, steps=10
    )
    module.contract = data.contract() | field_statistics(data, ["age", "sex"], center=True, each_voxel=False)
    module.contract["prior"] = FieldPriors.fit(data, module.contract, PEOPLE, 0).whole.state()
    module.correction = 0.0
    return module


def components_of(data):
    return StatisticalDeformationModel(data, ("age", "sex"))


def along(module, **conditions):
    """Where draws lie along the direction, `[DRAWS]`."""
    drawn = module.samples(range(DRAWS), 0, [conditions] * DRAWS)
    return (drawn * DIRECTION).sum(dim=(1, 2, 3, 4)).double().numpy()


@pytest.mark.parametrize("made", [prior_of, components_of])
def test_draws_vary_as_people_of_the_same_covariates_and_all_draws_as_all_people(cohort, made):
    data, places = cohort
    module = made(data)
    for age, sex in ((25, "F"), (50, "M"), (78, "F")):
        found = along(module, age=age, sex=sex)
        assert found.mean() == pytest.approx(expected(age, sex), abs=0.3)
        assert found.std() == pytest.approx(NOISE, rel=0.2)
    women, anyone = along(module, sex="F"), along(module)
    assert women.mean() == pytest.approx(expected(AGES, "F").mean(), abs=0.3)
    assert women.std() == pytest.approx(np.hypot(expected(AGES, "F").std(), NOISE), rel=0.15)
    assert anyone.mean() == pytest.approx(places.mean(), abs=0.3)
    assert anyone.std() == pytest.approx(places.std(), rel=0.12) and places.std() > 2.5 * NOISE


@pytest.mark.parametrize("made", [prior_of, components_of])
def test_draws_vary_as_much_as_people_like_them(tmp_path, made):
    """Across the direction, that is: all that covariates don't say."""
    module = made(fields_of(tmp_path, wide=2.0)[0])
    sizes = {}
    for sex in "FM":
        drawn = module.samples(range(60), 0, [{"age": 50.0, "sex": sex}] * 60)
        drawn -= (drawn * DIRECTION).sum(dim=(1, 2, 3, 4), keepdim=True) * DIRECTION
        sizes[sex] = float((drawn - drawn.mean(dim=0)).std())
    one = float(torch.stack([0.2 * smooth(k) for k in range(PEOPLE)]).std())
    assert sizes["F"] == pytest.approx(one, rel=0.1) and sizes["M"] == pytest.approx(2 * one, rel=0.1)


def test_who_is_alone_of_a_kind_varies_as_everybody_does(tmp_path):
    """The fit of covariates follows that person all the way, and leaves nothing to measure."""
    data, _ = fields_of(tmp_path)
    for k, scan in enumerate(data.scans):
        scan.covariates["sex"] = "M" if k == 7 else "F"
    module = prior_of(data)
    vectors = [module.condition({"age": 50.0, "sex": sex}) for sex in "FM"]
    one, other = (float(module.amplitude(v)) for v in vectors)
    assert one == pytest.approx(1, abs=0.06) and other == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("conditions", [{}, {"age": 60.0}])
def test_what_is_not_known_of_a_sample_depends_on_seed_and_index_alone(cohort, conditions):
    module = prior_of(cohort[0])
    first = module.sample(3, conditions=conditions)
    other = module.sample(4, conditions=conditions)
    torch.manual_seed(99)
    assert torch.equal(module.sample(3, conditions=conditions), first) and not torch.equal(first, other)
    module.micro_batch = 2
    together = module.samples(range(2, 4), 0, [conditions] * 2)
    assert torch.allclose(together[1], first, atol=1e-5)


@pytest.mark.parametrize("made", [prior_of, components_of])
def test_a_sample_knows_whose_covariates_it_was_drawn_with(cohort, made):
    module = made(cohort[0])
    people = [module.person(k, 0, {"sex": "F"}) for k in range(DRAWS)]
    assert {person["sex"] for person in people} == {"F"}
    ages = np.array([person["age"] for person in people])
    assert np.ptp(ages) > 30
    left = along(module, sex="F") - expected(ages, "F")
    assert left.std() == pytest.approx(NOISE, rel=0.2)
    assert module.person(3, 1, {}) != module.person(3, 0, {})
    assert module.person(3, 0, {"age": 33.0, "sex": None})["age"] == 33.0


def test_weights_from_before_draw_as_they_did(cohort):
    """Without rows, nothing is drawn beside the prior, which is of whole fields."""
    data, places = cohort
    module = prior_of(data)
    del module.contract["effects"]["rows"], module.contract["effects"]["amplitudes"]
    whole = FieldPriors.fit(data, module.contract, PEOPLE, 0).whole
    assert float(whole.modes.square().sum()) > 1.5 * float(module.contract["prior"]["modes"].square().sum())
    module.contract["prior"] = whole.state()
    assert module.drawn([0], 0, None) is None and module.person(0, 0, {"age": 70.0}) == {"age": 70.0}
    assert along(module).std() == pytest.approx(places.std(), rel=0.12)
    change = module.sample(0, conditions={"age": 70.0, "sex": "F"}) - module.sample(0)
    vector = module.condition({"age": 70.0, "sex": "F"})
    assert torch.allclose(change, module.effect(vector)[0] * module.contract["scale"], atol=0.02)
