"""Stage 2: sampling, conditions, checks."""

import re
from types import SimpleNamespace

import pytest
import torch

from cortexgen.atlas.template import Template
from cortexgen.errors import UserError
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.io import Grid
from cortexgen.modules import FieldDiffusionModule
from cortexgen.modules.base import check_contract
from cortexgen.spatial import antialias, compose, folded, integrate

SHAPE = (9, 11, 10)
GRID = Grid(SHAPE, torch.diag(torch.tensor([8.0, 8, 8, 1])).double().numpy())


def module_of(**options):
    torch.manual_seed(0)
    small = {
        "width": 8,
        "multipliers": (1, 2),
        "spatial_attention": ("none", "full"),
        "heads": 2,
        "head_size": 4,
        "steps": 3,
    }
    module = FieldDiffusionModule(**small | options).eval()
    torch.nn.init.normal_(module.net.outlet[-1].weight, std=0.05)
    age = {"mean": 50.0, "std": 10.0, "min": 20.0, "max": 80.0}
    module.contract = {
        "grid": GRID.to_dict(),
        "mean": torch.full((3, *SHAPE), 0.25),
        "scale": 0.5,
        "integration_steps": 7,
        "covariates": {"age": age, "sex": {"levels": ["F", "M"]}} if module.hparams.covariates else {},
        "template": {"name": "T", "hash": "h", "classes": ["Unknown", "A"]},
    }
    return module


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
def test_a_sample_depends_on_seed_and_index_alone(sampler):
    module = module_of(sampler=sampler)
    first = module.sample(3)
    module.sample(0)
    torch.manual_seed(99)
    assert torch.equal(module.sample(3), first)
    assert not torch.equal(module.sample(4), first)
    assert not torch.equal(module.sample(3, attempt=1), first)
    module.sample_seed = 1
    assert not torch.equal(module.sample(3), first)


def test_samples_are_scaled_back():
    """With a network that always answers x0 = 0, the sample is the mean field."""
    module = module_of(prediction="x0")
    torch.nn.init.zeros_(module.net.outlet[-1].weight)
    assert torch.allclose(module.sample(0), torch.full((3, *SHAPE), 0.25), atol=1e-6)
    assert torch.allclose(module.normalized(torch.full((1, 3, *SHAPE), 1.25)), torch.full((1, 3, *SHAPE), 2.0))


def test_guidance_extrapolates_from_free_to_conditional():
    module = module_of(covariates=["age", "sex"])
    z, level = torch.randn(1, 3, *SHAPE), torch.zeros(1)
    condition = module.encoder.encode([{"age": 70, "sex": "F"}])
    results = {}
    for weight in (0.0, 1.0, 3.0):
        module.guidance = weight
        results[weight] = module.denoise(z, level, condition)
    free = module.denoise(z, level, None)
    assert torch.allclose(results[0.0], free, atol=1e-6)
    assert not torch.allclose(results[1.0], free, atol=1e-4)
    assert torch.allclose(results[3.0], free + 3 * (results[1.0] - free), atol=1e-5)


def test_conditions_change_a_sample_and_unknown_values_do_not():
    module = module_of(covariates=["age", "sex"])
    free = module.sample(0)
    assert torch.equal(module.sample(0, conditions={"age": None}), free)
    old = module.sample(0, conditions={"age": 70})
    assert not torch.equal(old, free)
    module.conditions = {"age": 70}
    assert torch.equal(module.sample(0), old) and torch.equal(module.sample(0, conditions={}), free)


def test_covariate_dropout_hides_all_or_single_values():
    module = module_of(covariates=["age", "sex"], covariate_dropout=0.5)
    torch.manual_seed(0)
    rows = [{"age": 70, "sex": "F"}] * 400
    vectors = module.encoder.encode(rows)
    known = module._hidden(vectors)[:, [7, 15]]
    share = known.mean(dim=0)
    assert ((share - 0.25).abs() < 0.08).all()
    assert (known.sum(dim=1) == 1).any() and (known.sum(dim=1) == 0).any()
    assert (vectors[:, [7, 15]] == 1).all()


def test_training_lowers_the_denoising_loss():
    module = module_of()
    torch.manual_seed(0)
    x = antialias(torch.randn(4, 3, *SHAPE), (3, 3, 3)) * 2 + 0.25
    batch = {"velocity": x, "covariates": [{}] * 4}
    t, noise = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.randn_like(x)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    before = float(module._loss(batch, t, noise, training=False))
    for _ in range(40):
        optimizer.zero_grad()
        module._loss(batch, t, noise, training=True).backward()
        optimizer.step()
    assert float(module._loss(batch, t, noise, training=False)) < 0.6 * before


def test_a_drawn_displacement_is_written_with_its_inverse():
    module = module_of()
    template = Template("T", torch.rand(1, *SHAPE), None, ("a",), GRID, "h")
    contract = {"template_source": None, "template": {"hash": "h"}, "image_grid": GRID.to_dict()}
    module.contract |= contract | {"integration_steps": 0}
    module.template = template
    u = antialias(torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0)), (4, 4, 4))
    u = 0.6 * u / u.std()
    sampler = FieldGenerator(module)
    maps = sampler.maps(1.0)
    there, back = maps.forward(u), maps.backward(u)
    assert torch.allclose(there, u, atol=1e-5)
    assert compose(there, back).abs().max() < 1e-5 < compose(u, -u).abs().max() / 1e4


def test_impossible_volumes_are_found():
    module = module_of()
    weights = torch.zeros(2, *SHAPE)
    weights[1, 3:6, 3:6, 3:6] = 1
    module.contract |= {
        "log_volume_mean": torch.tensor([0.0, 27 * 512 / 1000]).log(),
        "log_volume_std": torch.full((2,), 0.05),
    }
    sampler = SimpleNamespace(weights=weights, contract=module.contract, velocity_grid=GRID)
    assert not [r for r in FieldGenerator.failed_checks(sampler, torch.zeros(1, 3, *SHAPE)) if r.startswith("A")]
    place = torch.stack(torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    grown = FieldGenerator.failed_checks(sampler, integrate(0.1 * place[None]))  # of -v: the pull-back contracts
    assert any(r.startswith("A at +") for r in grown)


@pytest.mark.parametrize(("deviations", "millilitres", "fine"), [(3.7, 5, True), (-3.7, 5, True), (4.3, 5, False)])
def test_a_volume_is_judged_by_the_cohorts_deviation(deviations, millilitres, fine):
    module, weights = module_of(), torch.zeros(2, *SHAPE)
    weights[1, 3:6, 3:6, 3:6] = millilitres / (27 * 512 / 1000)
    mean = torch.tensor([0.0, millilitres]).log() - 0.05 * deviations
    module.contract |= {"log_volume_mean": mean, "log_volume_std": torch.full((2,), 0.05)}
    sampler = SimpleNamespace(weights=weights, contract=module.contract, velocity_grid=GRID)
    assert (
        not [r for r in FieldGenerator.failed_checks(sampler, torch.zeros(1, 3, *SHAPE)) if r.startswith("A")]
    ) == fine


@pytest.mark.parametrize(("millilitres", "judged"), [(0.05, False), (0.2, True)])
def test_slivers_are_not_judged(millilitres, judged):
    module, weights = module_of(), torch.zeros(2, *SHAPE)
    weights[1, 3:6, 3:6, 3:6] = 2 * millilitres / (27 * 512 / 1000)
    mean = torch.tensor([0.0, millilitres]).log()
    module.contract |= {"log_volume_mean": mean, "log_volume_std": torch.full((2,), 0.05)}
    sampler = SimpleNamespace(weights=weights, contract=module.contract, velocity_grid=GRID)
    found = [r for r in FieldGenerator.failed_checks(sampler, torch.zeros(1, 3, *SHAPE)) if r.startswith("A")]
    assert bool(found) == judged


@pytest.mark.parametrize("redraws", [0, 2])
def test_draws_that_fail_are_given_up_after_as_many_as_asked_for(redraws):
    grid = GRID.at_spacing(8.0)
    module = module_of(max_redraws=redraws)
    module.contract |= {"template_source": None, "template": {"hash": "h"}, "image_grid": grid.to_dict()}
    module.template = Template("T", torch.rand(1, *grid.shape), None, ("a",), grid, "h")
    attempts = []
    wild = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * 6
    module.samples = lambda indices, attempt, conditions: attempts.append(attempt) or wild[None]
    with pytest.raises(UserError, match=f"{redraws + 1} draws failed the checks, the last one with .* folded voxels"):
        FieldGenerator(module).draw(0)
    assert attempts == list(range(redraws + 1))


def test_draws_that_fold_a_little_are_smoothed_and_others_drawn_again():
    """On a grid as fine as the velocity's and a finer one; what is written never folds."""
    grid = GRID.at_spacing(4.0)
    image = torch.rand(1, *grid.shape)
    template = Template("T", image, None, ("a",), grid, "h")
    torch.manual_seed(0)
    smooth, wild = antialias(torch.randn(1, 3, *SHAPE), (3, 3, 3))[0], torch.randn(3, *SHAPE) * 6
    dented = smooth.clone()
    dented[:, 3:6, 4:7, 4:7] += torch.randn(3, 3, 3, 3)
    draws = [wild, dented]
    module = module_of()
    module.contract |= {"template_source": None, "template": {"hash": "h"}, "image_grid": grid.to_dict()}
    module.template, module.samples = template, lambda indices, attempt, conditions: draws[attempt][None]
    assert folded(integrate(dented[None]))[0] > 0
    drawn = FieldGenerator(module).draw(0)
    (reason,) = drawn.rejected
    field = drawn.field
    assert re.fullmatch(r"\d+ folded voxels", reason) and field.unfolding > 0
    assert not folded(integrate(torch.stack([field.velocity, -field.velocity]))).any()
    assert not folded(field.displacement[None]).any()
    far = (field.velocity - dented).abs().amax(dim=0)
    assert float(far[:, :, 0].max()) < 0.05 * float(far.max())


@pytest.mark.parametrize("sampler", ["ancestral", "dpm++"])
def test_a_micro_batch_is_one_call_of_the_network_with_each_samples_own_noise(sampler):
    alone, module = module_of(sampler=sampler), module_of(sampler=sampler, micro_batch=3)
    sizes = []
    module.net.register_forward_pre_hook(lambda net, args: sizes.append(len(args[0])))
    assert module.together(4) == range(3, 6)
    drawn = module.samples(range(3, 6), 1, [{}] * 3)
    assert sizes == [3] * module.steps
    for k, velocity in enumerate(drawn, start=3):
        assert torch.allclose(velocity, alone.sample(k, 1), atol=0.05)
        assert torch.equal(velocity, module.sample(k, 1))
    assert float((drawn[0] - drawn[1]).abs().max()) > 0.5


def test_conditions_of_a_micro_batch_are_each_samples_own():
    module, alone = (module_of(covariates=["age", "sex"], micro_batch=m) for m in (2, 1))
    module.precision = alone.precision = "32"
    asked = [{"age": 25}, {"age": 75, "sex": "M"}]
    for k, velocity in enumerate(module.samples(range(2), 0, asked)):
        assert torch.allclose(velocity, alone.sample(k, conditions=asked[k]), atol=1e-4)
        assert not torch.allclose(velocity, alone.sample(k, conditions=asked[1 - k]), atol=1e-2)


def test_a_redrawn_sample_does_not_depend_on_who_else_is_wanted():
    """Number 1 fails its first draw; its second comes from the micro-batch's second."""
    grid = GRID.at_spacing(8.0)
    module = module_of(micro_batch=3)
    module.contract |= {"template_source": None, "template": {"hash": "h"}, "image_grid": grid.to_dict()}
    module.template = Template("T", torch.rand(1, *grid.shape), None, ("a",), grid, "h")
    real, calls, wild = module.samples, [], 50 * torch.randn(3, *SHAPE)

    def samples(indices, attempt, conditions):
        calls.append(attempt)
        out = 0.1 * real(indices, attempt, conditions)
        out[1] += (attempt == 0) * wild
        return out

    module.samples = samples
    sampler = FieldGenerator(module)
    together = {sample.index: sample for sample in sampler.draws([0, 1, 2])}
    assert calls == [0, 1] and set(together) == {0, 1, 2}
    assert len(together[1].rejected) == 1 and not together[0].rejected
    for k in range(3):
        alone = sampler.draw(k)
        assert torch.equal(alone.field.velocity, together[k].field.velocity) and alone.rejected == together[k].rejected


def test_what_weights_are_drawn_with_is_what_was_set_or_what_they_carry():
    module = module_of(steps=None, correction=0.7)
    assert (module.sampler, module.steps, module.guidance, module.correction) == ("dpm++", 12, 1.0, 0.7)
    module.contract["sampling"] = {"sampler": "ancestral", "steps": 256, "guidance": 2.0, "correction": 1.0}
    assert (module.sampler, module.steps, module.guidance, module.correction) == ("ancestral", 256, 2.0, 0.7)
    module.steps, module.correction = 5, None
    assert module.steps == 5 and module.correction == 1.0
    saved = {}
    module.on_save_checkpoint(saved)
    assert saved["cortexgen"]["sampling"] == {"sampler": "ancestral", "steps": 5, "guidance": 2.0, "correction": 1.0}


def test_contract_names_both_sides():
    ours = {"grid": GRID.to_dict(), "template": {"name": "T", "hash": "h", "classes": []}}
    check_contract(ours, {"grid": GRID.to_dict(), "template": dict(ours["template"])})
    with pytest.raises(UserError, match=r"grid is 9 x 11 x 10 .* data's is 5 x 6 x 5"):
        check_contract(ours, {"grid": GRID.coarse(2).to_dict()})
    with pytest.raises(UserError, match="template"):
        check_contract(ours, {"template": {"name": "U", "hash": "g", "classes": []}})
    with pytest.warns(UserWarning, match="preprocessed"):
        check_contract(ours | {"preprocessing": ["N4"]}, {"preprocessing": []})


def test_run_time_options_are_no_hyper_parameters():
    hidden = {"sampler", "steps", "guidance", "conditions", "num_samples", "sample_seed", "spacing", "max_redraws"}
    assert not hidden & set(module_of(num_samples=3).hparams)
