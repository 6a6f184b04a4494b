"""What stage 2 trains on and draws from, option by option: its network is replaced by one whose answer is known, which
keeps what it was shown; losses and samples are compared with closed forms and dense algebra."""

import json

import numpy as np
import pytest
import scipy.fft
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from torch import nn

from cortexgen.atlas.template import load_template
from cortexgen.data.fields import FieldDataModule
from cortexgen.diffusion import sampler_named
from cortexgen.io import Grid, write_field, write_volume
from cortexgen.io.bids import sidecar, write_tsv
from cortexgen.modules import FieldDiffusionModule
from cortexgen.nets import FieldUNet
from cortexgen.spatial import antialias

SHAPE = (5, 6, 7)
GRID = Grid(SHAPE, np.array([[0, 0, 8, -24], [0, 8, 0, -20], [8, 0, 0, -16], [0, 0, 0, 1.0]]))
SMALL = {"width": 8, "multipliers": (1, 2), "spatial_attention": ("none", "full"), "heads": 2, "head_size": 4}
AGES = (20, 35, 60, 75, 50)
SIDES = ("train", "train", "train", "train", "val")


def smooth(seed):
    noise = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return 2 * antialias(noise, (2, 2, 2))[0] + 0.2


def write_cohort(root, fields, grid=GRID):
    write_volume(root / "template" / "tpl-Toy_T1w.nii.gz", torch.rand(1, *grid.shape), grid)
    digest = load_template(root / "template" / "tpl-Toy_T1w.nii.gz").hash
    info = {"Template": "Toy", "TemplateHash": digest, "IntegrationSteps": 7, "ImageGrid": grid.to_dict()}
    names = [f"sub-{k:02d}" for k in range(1, len(fields) + 1)]
    for name, field in zip(names, fields, strict=True):
        path = root / name / "anat" / f"{name}_space-Toy_desc-velocity_field.nii.gz"
        write_field(path, field, grid)
        sidecar(path).write_text(json.dumps(info))
    write_tsv(root / "registration.tsv", [{"participant_id": n, "split": s} for n, s in zip(names, SIDES, strict=True)])
    write_tsv(root / "participants.tsv", [{"participant_id": n, "age": a} for n, a in zip(names, AGES, strict=True)])
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four training fields with ages, and one for validation."""
    return write_cohort(tmp_path_factory.mktemp("fields"), [smooth(k) for k in range(5)])


class Known(nn.Module):
    """Answers as it is told to, and keeps what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, z, log_snr, covariates=None):
        self.seen.append((z.detach().clone(), log_snr.detach().double(), covariates))
        return self.answer(z, log_snr) + 0 * self.unused


class Watch(Callback):
    """Keeps each step's batch and loss, and the settings of the optimizer."""

    def __init__(self):
        self.batches, self.losses, self.optimizer = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        group = trainer.optimizers[0].param_groups[0]
        self.optimizer.append((group["lr"], tuple(group["betas"])))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.batches.append(batch)
        self.losses.append(float(outputs["loss"]))


def part_of(z, log_snr):
    """An answer without meaning, but of both inputs."""
    return 0.3 * z[:, :3] + 0.1 * torch.tanh(log_snr.float()).view(-1, 1, 1, 1, 1)


def fitted(root, steps=6, answer=part_of, data=None, callbacks=(), **options):
    """A module after some steps with a known network: itself, that network, and what was seen."""
    seed_everything(0, verbose=False)
    fields = FieldDataModule(
        root, str(root / "template/tpl-Toy_T1w.nii.gz"), **{"mirror": False, "batch_size": 4} | (data or {})
    )
    module = FieldDiffusionModule(**SMALL | {"lr": 0.0} | options)
    module.net = Known(answer)
    watch = Watch()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        precision="32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=10**6,
        callbacks=[watch, *callbacks],
    )
    trainer.fit(module, fields)
    return module, module.net.seen, watch


def levels(log_snr):
    """Alpha and sigma of log-SNRs, to multiply fields."""
    p = 1 / (1 + np.exp(-np.asarray(log_snr, dtype=float)))
    return np.sqrt(p).reshape(-1, 1, 1, 1, 1), np.sqrt(1 - p).reshape(-1, 1, 1, 1, 1)


def shown(root, scale=None, center=True):
    """The training fields as the network should be trained on them, and a function that scales any."""
    fields = np.stack([smooth(k).numpy() for k in range(4)]).astype(float)
    mean = fields.mean(axis=0) if center else 0.0
    deviation = np.sqrt(np.square(fields - mean).mean()) if scale is None else scale
    return (fields - mean) / deviation, lambda x: (x.numpy().astype(float) - mean) / deviation


def roughness(error):
    return np.mean([np.square(np.diff(error, axis=axis)).mean() for axis in (2, 3, 4)])


TARGETS = {
    "v": lambda x0, noise, alpha, sigma: alpha * noise - sigma * x0,
    "eps": lambda x0, noise, alpha, sigma: noise,
    "x0": lambda x0, noise, alpha, sigma: x0,
}


@pytest.mark.parametrize(
    "options",
    [
        *({"prediction": name, "center": name != "eps"} for name in TARGETS),
        {"gradient_weight": 3.0},
        {"levels": (-3.0, 2.0)},
    ],
)
def test_the_network_is_told_the_noise_that_it_sees_and_its_error_is_the_loss(root, options):
    _, seen, watch = fitted(root, **options)
    _, scaled = shown(root, center=options.get("center", True))
    assert len(seen) == len(watch.losses) == 6
    for (z, log_snr, _), batch, loss in zip(seen, watch.batches, watch.losses, strict=True):
        alpha, sigma = levels(log_snr)
        x0 = scaled(batch["velocity"])
        noise = (z.numpy() - alpha * x0) / sigma
        assert np.abs(noise.std(axis=(1, 2, 3, 4)) - 1).max() < 0.12 and abs(noise.mean()) < 0.12
        target = TARGETS[options.get("prediction", "v")](x0, noise, alpha, sigma)
        error = part_of(z, log_snr).numpy() - target
        expected = np.square(error).mean() + options.get("gradient_weight", 0.0) * roughness(error)
        assert loss == pytest.approx(expected, rel=5e-3)


def test_the_scale_is_the_deviation_of_the_cohort_or_that_of_each_voxel(root):
    scaled, _ = shown(root)
    module, *_ = fitted(root, steps=1)
    assert module.contract["scale"].ndim == 0
    np.testing.assert_allclose(module.normalized(smooth(1)[None])[0].numpy(), scaled[1], atol=1e-4)
    voxelwise, *_ = fitted(root, steps=1, scaling="voxel")
    assert voxelwise.contract["scale"].shape == (3, *SHAPE)


def test_a_scale_of_each_voxel_is_smooth_and_a_tenth_of_the_whole_where_nothing_moves(tmp_path):
    """Of four fields, whose deviation at a voxel says little."""
    torch.manual_seed(0)
    fields = torch.randn(5, 3, 9, 9, 36)
    fields[..., 12:] = 0
    write_cohort(tmp_path, fields, Grid((9, 9, 36), GRID.affine))
    module, *_ = fitted(tmp_path, steps=1, scaling="voxel")
    rough = (fields[:4] - fields[:4].mean(dim=0)).square().mean(dim=0)
    overall, scale = rough.mean().sqrt(), module.contract["scale"]
    torch.testing.assert_close(scale[..., -6:], (0.1 * overall).expand(3, 9, 9, 6), rtol=1e-3, atol=0)
    inside, plain = (x[..., 2:7, 2:7, :7] for x in (scale - 0.1 * overall, rough.sqrt()))
    assert float(inside.std() / inside.mean()) < 0.4 * float(plain.std() / plain.mean())


@pytest.mark.parametrize(
    ("options", "quantile"),
    [
        ({}, lambda x: np.arctan(np.exp(-x / 2)) / (np.pi / 2)),  # ±20 are all but the whole quarter turn
        ({"levels": (-5.0, 3.0)}, lambda x: (3 - x) / 8),
        (
            {"log_snr_max": 4.0, "log_snr_min": -2.0},
            lambda x: (np.arctan(np.exp(-x / 2)) - np.arctan(np.exp(-2.0))) / (np.arctan(np.e) - np.arctan(np.exp(-2))),
        ),
        (
            {"log_snr_max": 4.0, "log_snr_min": -2.0, "prior_modes": 2},
            lambda x: (np.arctan(np.exp(-x / 2)) - np.arctan(np.exp(-2.0))) / (np.arctan(np.e) - np.arctan(np.exp(-2))),
        ),
    ],
)
def test_noise_levels_of_training_are_distributed_as_asked_for(root, options, quantile):
    """Their times, by the inverse of the schedule, are uniform in [0, 1]."""
    _, seen, _ = fitted(root, steps=40, **options)
    times = np.sort(np.concatenate([quantile(log_snr.numpy()) for _, log_snr, _ in seen]))
    assert len(times) == 160 and times[0] > -1e-3 and times[-1] < 1 + 1e-3
    assert np.abs(times - np.linspace(0, 1, 160)).max() < 0.1


def covariance_of(prior):
    """Σ of the prior in a contract, dense, `[n, n]`."""
    spectrum = prior["spectrum"].double().numpy()
    n = spectrum.size
    axes = np.meshgrid(*[np.arange(m) / (2 * m) for m in SHAPE], indexing="ij")
    low = np.broadcast_to(np.sqrt(np.square(axes).sum(axis=0)) < prior["cutoff"], spectrum.shape).ravel()
    modes = np.zeros((len(prior["modes"]), n))
    modes[:, low] = prior["modes"].double().numpy()
    basis = scipy.fft.idctn(np.eye(n).reshape(n, *spectrum.shape), axes=(2, 3, 4), norm="ortho").reshape(n, n).T
    return basis @ (modes.T @ modes + np.diag(spectrum.ravel())) @ basis.T


def posterior(covariance, z, log_snr):
    """Mean of each x given z, and the root mean square of what it leaves, by dense algebra."""
    values, vectors = np.linalg.eigh(covariance)
    means, sizes = [], []
    for one, alpha, sigma in zip(z, *(c.ravel() for c in levels(log_snr)), strict=True):
        total = alpha**2 * values + sigma**2
        means.append((vectors @ (alpha * values / total * (one.ravel() @ vectors))).reshape(one.shape))
        sizes.append(np.sqrt((values * sigma**2 / total).mean()))
    return np.stack(means), np.reshape(sizes, (-1, 1, 1, 1, 1))


def standardized(ages):
    return (np.asarray(ages, dtype=float) - np.mean(AGES[:4])) / np.std(AGES[:4])


def slope_of_age(scaled):
    age = standardized(AGES[:4])
    return np.tensordot(age, scaled, axes=1) / np.square(age).sum()


@pytest.mark.parametrize("options", [{}, {"covariates": ["age"], "covariate_dropout": 0.4}, {"gradient_weight": 2.0}])
def test_with_a_prior_the_loss_is_the_error_of_the_residual_in_units_of_its_size(root, options):
    module, seen, watch = fitted(root, prior_modes=3, cross_fit=0, levels=(-9.0, 5.0), **options)
    fields, scaled = shown(root)
    slope = slope_of_age(fields) if "covariates" in options else 0 * fields[0]
    left = fields - np.multiply.outer(standardized(AGES[:4]), slope)
    covariance = covariance_of(module.contract["prior"])
    assert np.trace(covariance) == pytest.approx(np.square(left).sum() / 4, rel=1e-3)
    sizes = []
    for (z, log_snr, _), batch, loss in zip(seen, watch.batches, watch.losses, strict=True):
        alpha, _ = levels(log_snr)
        x0 = scaled(batch["velocity"])
        # The prior knows the age, whether the network is shown it or not.
        shift = np.multiply.outer(standardized([row["age"] for row in batch["covariates"]]), slope)
        mean, size = posterior(covariance, z[:, :3].numpy() - alpha * shift, log_snr)
        mean = mean + shift
        rms = np.sqrt(np.square(mean).mean(axis=(1, 2, 3, 4), keepdims=True))
        np.testing.assert_allclose(z[:, 3:].numpy(), mean / rms, atol=5e-3)
        error = part_of(z, log_snr).numpy() - (x0 - mean) / size
        expected = np.square(error).mean() + options.get("gradient_weight", 0.0) * roughness(error)
        assert loss == pytest.approx(expected, rel=1e-2)
        sizes.extend(size.ravel())
    assert min(sizes) < 0.4 and max(sizes) > 0.8


def test_a_prior_has_as_many_modes_as_asked_for(root):
    found = [fitted(root, steps=1, prior_modes=n, cross_fit=0)[0].contract["prior"]["modes"] for n in (1, 2)]
    assert [len(modes) for modes in found] == [1, 2]


def test_the_priors_of_training_have_as_many_modes_as_asked_for(root):
    """The same noised fields, and another guess of them."""
    one, two = (fitted(root, steps=1, prior_modes=n, cross_fit=4, levels=(-3.0, 0.0))[1][0][0] for n in (1, 2))
    assert torch.equal(one[:, :3], two[:, :3]) and float((one[:, 3:] - two[:, 3:]).abs().max()) > 0.1


@pytest.mark.parametrize("folds", [0, 2, 4])
def test_the_prior_that_a_subject_meets_in_training_does_not_know_it(tmp_path, folds):
    """Each of four subjects moves along one axis alone, and the last two along the same; a prior without a subject, and
    without those of its fold, expects nothing along an axis that is nobody's."""
    moves = (0, 1, 2, 2)
    fields = [torch.zeros(3, *SHAPE) for _ in AGES]
    for k, field in enumerate(fields):
        field[moves[k % 4]] = smooth(k)[0]
    write_cohort(tmp_path, fields)
    _, seen, watch = fitted(tmp_path, 4, prior_modes=3, cross_fit=folds, center=False, levels=(-3.0, 0.0))
    without = {
        0: [(), (), (), ()],  # of sub-01 to sub-04: axes that its prior must not expect
        2: [(0,), (1,), (0,), (1,)],  # parts {01, 03} and {02, 04}
        4: [(0,), (1,), (), ()],
    }[folds]
    checked = 0
    for (z, _, _), batch in zip(seen, watch.batches, strict=True):
        for name, mean in zip(batch["name"], z[:, 3:].numpy(), strict=True):
            share = np.square(mean).mean(axis=(1, 2, 3)) / np.square(mean).mean()
            silent = [axis in without[int(name[-1]) - 1] for axis in range(3)]
            assert ((share < 1e-6) == silent).all(), (name, share)
            checked += 1
    assert checked == 16


def test_cross_fitting_finds_the_next_subject_harder_than_a_prior_that_knows_it(root):
    """The loss of a network that says nothing is the residual's square, 1 where the prior tells its size right."""
    silence = {"answer": lambda z, _: torch.zeros_like(z[:, :3]), "prior_modes": 3, "levels": (-6.0, 4.0)}
    known, unknown = (np.mean(fitted(root, 20, cross_fit=n, **silence)[2].losses) for n in (0, 4))
    assert unknown > 1.3 * known  # modes hold the lower half of the frequencies


def test_covariates_are_hidden_as_often_as_asked_for_and_only_in_training(root):
    def known(dropout):
        module, seen, watch = fitted(root, 30, covariates=["age"], covariate_dropout=dropout)
        values = np.concatenate([c.numpy() for *_, c in seen])
        ages = np.array([row["age"] for batch in watch.batches for row in batch["covariates"]])
        there = values[:, 7] == 1
        training = np.array(AGES[:4], dtype=float)
        expected = (ages - training.mean()) / training.std()
        np.testing.assert_allclose(values[:, 0], np.where(there, expected, 0), atol=1e-5)
        del module.net.seen[:]
        module.trainer.validate(module, module.trainer.datamodule, verbose=False)
        return there.mean(), np.concatenate([c.numpy() for *_, c in module.net.seen])[:, 7].mean()

    for dropout in (0.0, 0.5):
        share, validation = known(dropout)
        assert share == pytest.approx((1 - dropout) ** 2, abs=0.1) and validation == 1


@pytest.mark.parametrize("prior", [0, 2])
def test_the_network_is_shown_covariates_of_a_sample(root, prior):
    module, *_ = fitted(root, steps=1, covariates=["age"], prior_modes=prior)
    del module.net.seen[:]
    module.sample(0, conditions={"age": 60})
    training = np.array(AGES[:4], dtype=float)
    expected = (60 - training.mean()) / training.std()
    assert all(c[0, 7] == 1 and float(c[0, 0]) == pytest.approx(expected, rel=1e-4) for *_, c in module.net.seen)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
@pytest.mark.parametrize("prior", [0, 2])
def test_a_sampler_tells_the_network_each_level_of_noise(root, sampler, prior):
    module, *_ = fitted(root, steps=1, prior_modes=prior, sampler=sampler)
    del module.net.seen[:]
    module.steps = 5
    module.sample(0)
    told = torch.cat([log_snr for _, log_snr, _ in module.net.seen])
    torch.testing.assert_close(told, sampler_named(sampler, module.schedule, 5).levels, check_dtype=False)
    assert told[-1] - told[0] > 10


DEVIATION = 0.4


def best(prediction):
    """The best network for independent voxels of mean 0 and DEVIATION."""

    def answer(z, log_snr):
        p = torch.sigmoid(log_snr.double()).view(-1, 1, 1, 1, 1)
        alpha, sigma = p.sqrt(), (1 - p).sqrt()
        x0 = alpha * DEVIATION**2 * z / (alpha**2 * DEVIATION**2 + sigma**2)
        noise = (z - alpha * x0) / sigma
        return TARGETS[prediction](x0, noise, alpha, sigma).float()

    return answer


@pytest.mark.parametrize("prediction", TARGETS)
def test_the_best_network_draws_the_distribution(root, prediction):
    """Samples of the optimum have the deviation of its data, in voxels about the cohort's mean field."""
    module, *_ = fitted(root, steps=1, answer=best(prediction), prediction=prediction)
    fields = torch.stack([smooth(k) for k in range(4)])
    drawn = torch.stack([module.sample(k) for k in range(6)]) - fields.mean(dim=0)
    scale = (fields - fields.mean(dim=0)).square().mean().sqrt()
    assert float(drawn.std() / scale) == pytest.approx(DEVIATION, rel=0.06)
    assert abs(float(drawn.mean() / scale)) < 0.03


def test_a_bound_keeps_what_the_network_says_of_a_clean_field(root):
    """eps = 0 at low SNR means a clean field of z / alpha, without bound."""
    module, *_ = fitted(root, steps=1, answer=lambda z, _: torch.zeros_like(z), prediction="eps", clip=1.5)
    z = torch.randn(1, 3, *SHAPE)
    alpha, _ = levels([-4.0])
    expected = np.clip(z.numpy() / alpha, -1.5, 1.5)
    with torch.no_grad():
        np.testing.assert_allclose(module.denoise(z, torch.tensor([-4.0]), None).numpy(), expected, atol=1e-5)
    assert np.abs(expected).max() == 1.5


@pytest.mark.parametrize("age", [None, 72.0])
@pytest.mark.parametrize("correction", [0.0, 0.5, 1.0])
def test_the_network_corrects_the_prior_by_its_size_as_far_as_asked_for(root, correction, age):
    """`effect + E[x0 - effect | z] + correction * size * answer`, by dense algebra."""
    module, *_ = fitted(root, steps=1, prior_modes=3, covariates=["age"])
    module.correction = correction
    z, log_snr = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5)), torch.tensor([-5.0, 2.0])
    condition = module.condition({"age": age})
    with torch.no_grad():
        found = module.denoise(z, log_snr, None if condition is None else condition.expand(2, -1)).numpy()
    training = np.array(AGES[:4], dtype=float)
    shift = 0 if age is None else (age - training.mean()) / training.std() * slope_of_age(shown(root)[0])
    mean, size = posterior(covariance_of(module.contract["prior"]), z.numpy() - levels(log_snr)[0] * shift, log_snr)
    answer = part_of(z, log_snr).numpy()
    assert np.abs(size * answer).max() > 0.2
    np.testing.assert_allclose(found, mean + shift + correction * size * answer, atol=2e-3)


def test_without_a_correction_samples_have_the_priors_covariance_about_the_conditions_mean(root):
    module, *_ = fitted(root, steps=1, prior_modes=3, covariates=["age"])
    module.correction, module.steps = 0.0, 10
    fields, _ = shown(root)
    drawn = torch.stack([module.sample(k, conditions={"age": 47.5}) for k in range(60)])  # the cohort's mean age
    scaled = module.normalized(drawn).flatten(1).double().numpy()
    covariance = covariance_of(module.contract["prior"])
    values, vectors = np.linalg.eigh(covariance)
    along = np.square(scaled @ vectors[:, ::-1]).mean(axis=0) / values[::-1]
    assert along[:3] == pytest.approx(1, abs=0.4) and along[:60].mean() == pytest.approx(1, abs=0.08)
    change = module.sample(0, conditions={"age": 72.0}) - module.sample(0, conditions={"age": 47.5})
    scale = float(module.contract["scale"])
    expected = (72 - 47.5) / np.std(AGES[:4]) * slope_of_age(fields) * scale
    np.testing.assert_allclose(change.numpy(), expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize(
    "option",
    [
        {"width": 12},
        {"multipliers": (1, 3)},
        {"blocks": 2},
        {"spatial_attention": ("full", "none")},
        {"heads": 3},
        {"head_size": 8},
        {"dropout": 0.25},
        {"patch": 2},
        {"place": 4},
    ],
)
def test_options_of_the_network_reach_it(option):
    def described(net):
        shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
        return shapes, net.patch, [m.p for m in net.modules() if isinstance(m, nn.Dropout)]

    plain, found = FieldDiffusionModule(**SMALL), FieldDiffusionModule(**SMALL | option)
    assert described(found.net) == described(FieldUNet(3, out=3, **SMALL | option)) != described(plain.net)


@pytest.mark.parametrize(("warmup", "decay"), [(4, False), (0, True), (3, True)])
def test_the_learning_rate_warms_up_and_falls(root, warmup, decay):
    options = {"lr": 2e-3, "betas": (0.8, 0.95), "warmup_steps": warmup, "lr_decay": decay}
    _, _, watch = fitted(root, 10, **options)
    step = np.arange(10)
    expected = 2e-3 * np.minimum(1, (step + 1) / max(1, warmup))
    if decay:
        expected = expected * (0.55 + 0.45 * np.cos(np.pi * step / 10))
    assert [lr for lr, _ in watch.optimizer] == pytest.approx(expected.tolist())
    assert {betas for _, betas in watch.optimizer} == {(0.8, 0.95)}


class Minutes(Timer):
    """A clock on which each step takes a minute."""

    def setup(self, trainer, *args, **kwargs):
        self.trainer = trainer

    def time_elapsed(self, stage="train"):
        return 60.0 * self.trainer.global_step


@pytest.mark.parametrize(("steps", "end"), [(-1, 10), (10**6, 10), (5, 5)])
def test_the_learning_rate_falls_by_the_clock_where_it_ends_the_training(root, steps, end):
    _, _, watch = fitted(root, steps, callbacks=[Minutes("00:00:10:00")], lr=2e-3, warmup_steps=0, lr_decay=True)
    expected = 2e-3 * (0.55 + 0.45 * np.cos(np.pi * np.arange(end) / end))
    assert [lr for lr, _ in watch.optimizer] == pytest.approx(expected.tolist())
