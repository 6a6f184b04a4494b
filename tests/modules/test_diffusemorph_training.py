"""What stage 1 minimizes, shows its networks and answers, option by option: its head is replaced by one whose velocity
is known, which keeps what it was shown; losses are computed again from the logged batch."""

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from scipy.ndimage import binary_dilation
from torch import nn

from cortexgen.data.registration import RegistrationDataModule
from cortexgen.io import Grid, write_volume
from cortexgen.losses import Correlation, folding_penalty, local_ncc, ncc_force
from cortexgen.modules import DiffuseMorphModule
from cortexgen.nets import DenoisingUNet, VelocityHead
from cortexgen.spatial import antialias, from_coarse, integrate, mirrored, warp

SHAPE, HALF = (13, 16, 15), (7, 8, 8)
GRID = Grid(SHAPE, np.array([[0, 0, 8, -56], [0, 8, 0, -60], [8, 0, 0, -48], [0, 0, 0, 1.0]]))
SMALL = {
    "denoiser_width": 4,
    "denoiser_multipliers": (1, 2),
    "encoder": (8, 8),
    "decoder": (8, 8),
    "ncc_window": 5,
    "timesteps": 20,
    "beta_start": 0.01,
    "beta_end": 0.3,
}


class Known(nn.Module):
    """Answers with one velocity, and keeps what it was shown."""

    def __init__(self, shape, size=1.2):
        super().__init__()
        noise = antialias(torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(1)), (4, 4, 4))
        self.velocity = nn.Parameter(size * noise / noise.std())
        self.seen = []

    def forward(self, images, coarse=None):
        self.seen.append((images.detach(), None if coarse is None else coarse.detach()))
        return self.velocity.expand(len(images), -1, -1, -1, -1)


class Watch(Callback):
    """Keeps each step's batch and what it logs, and the settings of the optimizer."""

    def __init__(self):
        self.steps, self.optimizer = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        group = trainer.optimizers[0].param_groups[0]
        self.optimizer.append((group["lr"], tuple(group["betas"])))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        logged = {k.removeprefix("train/"): float(v) for k, v in trainer.callback_metrics.items() if "train/" in k}
        self.steps.append((batch["moving"], batch["fixed"], logged | {"loss": float(outputs["loss"])}))


def blobs(seed=0):
    """Two images in [0, 1] of one texture, one of them shifted by 1.2 voxels along H."""
    generator = torch.Generator().manual_seed(seed)
    texture = antialias(torch.rand(1, 1, *SHAPE, generator=generator), (4, 4, 4))
    moving = (texture - texture.min()) / (texture.max() - texture.min())
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 1] = 1.2
    return moving, warp(moving, shift)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A template, and five subjects that are textured balls in air."""
    root = tmp_path_factory.mktemp("cohort")
    places = torch.stack(torch.meshgrid(*[torch.linspace(-1.2, 1.2, n) for n in SHAPE], indexing="ij"))
    ball = (places.square().sum(dim=0) < 1)[None]
    for k in range(6):
        name = f"sub-{k:02d}" if k else "tpl-Toy"
        path = root / (f"{name}/anat" if k else "template") / f"{name}_T1w.nii.gz"
        write_volume(path, ball * (0.2 + blobs(k)[0][0]), GRID)
    return root


def fitted(cohort, steps=4, **options):
    """A module after some steps with a known head: itself, the calls of G as (x_t, t, noise), and the steps."""
    seed_everything(0, verbose=False)
    pairs = RegistrationDataModule(cohort, str(cohort / "template" / "tpl-Toy_T1w.nii.gz"), val=1)
    module = DiffuseMorphModule(**SMALL | {"lr": 0.0} | options)
    module.head = Known(HALF)
    calls, denoise = [], module.denoise

    def watched(moving, fixed, x_t, t):
        out = denoise(moving, fixed, x_t, t)
        calls.append((x_t.detach(), t.detach(), out.noise.detach()))
        return out

    if module.denoiser is not None:
        module.denoise = watched
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
        callbacks=[watch],
    )
    trainer.fit(module, pairs)
    return module, calls, watch


def similarity(moving, fixed, velocity, mask=None, window=5, steps=7):
    """LNCC of the warped moving image, and where it was taken."""
    u = from_coarse(integrate(velocity, steps), fixed.shape[2:], 2)
    return float(local_ncc(warp(moving, u), fixed, window, mask=mask))


def roughness(velocity):
    return np.mean([np.square(np.diff(velocity.numpy(), axis=axis)).mean() for axis in (2, 3, 4)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"foreground": True, "symmetric": True, "clean": 0.5},
        {"similarity_weight": 3.0, "smoothness_weight": 7.0, "folding_weight": 900.0, "ncc_window": 7},
        {"integration_steps": 0, "code": "fixed"},
    ],
)
def test_the_loss_is_that_of_the_options(cohort, options):
    module, calls, watch = fitted(cohort, 12, **options)
    with torch.no_grad():
        velocity = module.head.velocity.clone()
        steps = options.get("integration_steps", 7)
        u = integrate(velocity, steps)
    spaces = []
    for moving, fixed, logged in watch.steps:
        expected = []
        for a, b, v in ((moving, fixed, velocity), (fixed, moving, -velocity)):
            brain = torch.from_numpy(binary_dilation(b[0, 0].numpy() > 0.05, np.ones((5, 5, 5))))[None, None].float()
            mask = brain if options.get("foreground") else None
            expected.append(similarity(a, b, v, mask, options.get("ncc_window", 5), steps))
        spaces.append(int(np.abs(np.array(expected) + logged["similarity"]).argmin()))
        assert logged["similarity"] == pytest.approx(-expected[spaces[-1]], abs=1e-5)
        assert logged["roughness"] == pytest.approx(roughness(velocity), rel=1e-4)
        folding = options.get("folding_weight", 0.0)
        shape = logged["similarity"] + options.get("smoothness_weight", 1.0) * logged["roughness"]
        shape = shape + folding * logged["folding"]
        total = logged["diffusion"] + options.get("similarity_weight", 10.0) * shape
        assert logged["loss"] == pytest.approx(total, rel=1e-4)
        if folding:
            assert logged["folding"] == pytest.approx(float(folding_penalty(u)), rel=1e-4) and logged["folding"] > 0
    assert set(spaces) == ({0, 1} if options.get("symmetric") else {0})
    assert bool(calls) == (options.get("code") != "fixed")


@pytest.mark.parametrize("clean", [0.0, 0.5, 1.0])
def test_g_denoises_at_every_step_of_the_schedule_or_looks_at_the_clean_image(cohort, clean):
    _, calls, watch = fitted(cohort, 24, clean=clean)
    kept = np.cumprod(1 - np.linspace(0.01, 0.3, 20))  # the share of the image that is left at t = 1 to 20
    times = []
    for (x_t, t, answer), (_, fixed, logged) in zip(calls, watch.steps, strict=True):
        times.append(int(t))
        if times[-1] == 0:
            torch.testing.assert_close(x_t, 2 * fixed - 1)
            assert logged["diffusion"] == 0
            continue
        share = kept[times[-1] - 1]
        noise = (x_t - share**0.5 * (2 * fixed - 1)) / (1 - share) ** 0.5
        assert float(noise.std()) == pytest.approx(1, abs=0.1) and abs(float(noise.mean())) < 0.1
        assert logged["diffusion"] == pytest.approx(float((answer - noise).square().mean()), rel=1e-3)
    noised = [t for t in times if t]
    assert len(noised) / 24 == pytest.approx(1 - clean, abs=0.3 if 0 < clean < 1 else 0)
    assert not noised or (min(noised) < 8 and max(noised) > 13 and max(noised) <= 20)


def module_of(**options):
    torch.manual_seed(0)
    return DiffuseMorphModule(**SMALL | options).eval()


def lively(**options):
    """A module whose head says something from the start."""
    module = module_of(**options)
    nn.init.normal_(module.head.flow.weight, std=0.1)
    return module


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("code", ["eps", "eps+fixed", "features+fixed", "fixed"])
def test_the_head_is_shown_what_the_code_says_and_what_it_has_warped(code, passes, force):
    moving, fixed = blobs()
    module = module_of(code=code, passes=passes, force=force, denoiser_patch=2 if "features" in code else 1)
    module.head = Known(HALF, 0.3)
    module.extra_passes = 0
    with torch.no_grad():
        velocity = module.velocity(moving, fixed)
        step = module.head.velocity
        seen = None if code == "fixed" else module.denoise(moving, fixed, 2 * fixed - 1, torch.zeros(1).long())
        torch.testing.assert_close(velocity, passes * step)
        assert len(module.head.seen) == passes
        for k, (images, coarse) in enumerate(module.head.seen):
            warped = warp(moving, from_coarse(integrate(k * step, 7), SHAPE, 2))
            fine = [warped, *([seen.noise] if "eps" in code else []), *([fixed] if "fixed" in code else [])]
            fine += [ncc_force(warped, Correlation(fixed, 5))] if force else []
            torch.testing.assert_close(images, torch.cat(fine, dim=1), atol=1e-4, rtol=1e-4)
            state = [*([seen.features] if "features" in code else []), *([k * step] if passes > 1 else [])]
            assert (coarse is None) == (not state)
            if state:
                torch.testing.assert_close(coarse, torch.cat(state, dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("passes, asked", [(1, 1), (3, 5)])
def test_registration_asks_more_often_than_training_where_that_asked_twice(passes, asked):
    module = module_of(code="fixed", passes=passes)
    for training, expected in ((True, passes), (False, asked)):
        module.train(training)
        module.head = Known(HALF, 0.3)
        module.velocity(*blobs())
        assert len(module.head.seen) == expected


@pytest.mark.parametrize("code", ["eps", "features+fixed", "fixed"])
def test_half_way_the_head_is_shown_half_of_the_code(code):
    """Algorithm 1; without a code the velocity itself is halved."""
    moving, fixed = blobs()
    module = module_of(code=code, denoiser_patch=2 if "features" in code else 1)
    module.head = Known(HALF, 0.3)
    with torch.no_grad():
        whole, half = (module.velocity(moving, fixed, eta=eta) for eta in (1.0, 0.5))
    (images, coarse), (fewer, less) = module.head.seen
    torch.testing.assert_close(half, whole / 2 if code == "fixed" else whole)
    torch.testing.assert_close(fewer, images * (torch.tensor([1, 0.5]).view(1, 2, 1, 1, 1) if code == "eps" else 1))
    if "features" in code:
        torch.testing.assert_close(less, coarse / 2)


@pytest.mark.parametrize("steps", [0, 2, 7])
def test_a_registration_integrates_the_velocity_in_so_many_squarings(steps):
    moving, fixed = blobs()
    module = module_of(integration_steps=steps)
    module.head = Known(HALF)
    expected = from_coarse(integrate(module.head.velocity.detach(), steps), SHAPE, 2)
    torch.testing.assert_close(module.register(moving, fixed).displacement, expected)
    assert (
        steps == 7 or (from_coarse(integrate(module.head.velocity.detach(), 7), SHAPE, 2) - expected).abs().max() > 0.1
    )


def test_g_sees_the_moving_and_the_fixed_image_and_the_step():
    moving, fixed = blobs()
    module, t, x = module_of(), torch.tensor([7]), torch.randn(1, 1, *SHAPE)
    with torch.no_grad():
        answer = module.denoise(moving, fixed, x, t).noise
        for changed in ((moving.flip(2), fixed, x, t), (moving, fixed.flip(2), x, t), (moving, fixed, x, t + 9)):
            assert (module.denoise(*changed).noise - answer).abs().max() > 1e-3


def test_mirroring_makes_the_answer_that_of_the_mirrored_pair_mirrored():
    moving, fixed = blobs()
    fixed = fixed + 0.1 * torch.linspace(-1, 1, SHAPE[2])  # left is not right
    module = lively()
    for mirror in (False, True):
        module.mirror = mirror
        there, back = module.solve(moving, fixed)[0], module.solve(moving.flip(-1), fixed.flip(-1))[0]
        difference = (mirrored(back) - there).abs().max() / there.abs().max()
        assert difference < 1e-4 if mirror else difference > 0.05


def test_refinement_is_as_long_as_the_module_says_and_answers_on_the_images_grid():
    moving, fixed = blobs()
    module = module_of()
    module.head = Known(HALF, 0.0)
    assert module.field_downsample == 2
    module.refine = 3
    assert module.field_downsample == 1
    velocity, kept = module.solve(moving, fixed)
    assert kept == 3 and velocity.shape == (1, 3, *SHAPE)
    assert torch.equal(velocity, module.solve(moving, fixed, refine=3).field)
    assert torch.equal(module.register(moving, fixed).displacement, integrate(velocity))
    coarse = module.solve(moving, fixed, refine=0)
    assert coarse.iterations is None and coarse.field.shape == (1, 3, *HALF)


@pytest.mark.parametrize(
    "option",
    [
        {"denoiser_width": 8},
        {"denoiser_multipliers": (1, 3)},
        {"denoiser_patch": 2},
        {"encoder": (8, 12)},
        {"decoder": (12, 8)},
        {"head_refine": (4,)},
        {"field_downsample": 1},
        {"field_downsample": 4, "encoder": (8, 8, 8)},
        {"force": True},
        {"passes": 2},
        {"code": "eps+fixed"},
    ],
)
def test_options_of_the_networks_reach_them(option):
    def shapes(net):
        return {name: tuple(value.shape) for name, value in net.state_dict().items()}

    options = {"denoiser_patch": 1, "head_refine": (16, 16), "field_downsample": 2} | SMALL | option
    plain, found = DiffuseMorphModule(**SMALL), DiffuseMorphModule(**SMALL | option)
    g = DenoisingUNet(3, *(options[f"denoiser_{name}"] for name in ("width", "multipliers", "patch")))
    images = 2 + ("code" in option) + 3 * ("force" in option)
    head = [options[name] for name in ("encoder", "decoder", "head_refine", "field_downsample")]
    m = VelocityHead(images, *head, 3 * ("passes" in option))
    assert shapes(found.denoiser) == shapes(g) and shapes(found.head) == shapes(m)
    assert found.head.field_downsample == options["field_downsample"] and found.denoiser.patch == g.patch
    different = shapes(found) != shapes(plain) or found.head.field_downsample != plain.head.field_downsample
    assert different


@pytest.mark.parametrize(("warmup", "decay"), [(4, False), (0, True), (3, True)])
def test_the_learning_rate_warms_up_and_falls(cohort, warmup, decay):
    options = {"lr": 2e-3, "betas": (0.8, 0.95), "warmup_steps": warmup, "lr_decay": decay}
    _, _, watch = fitted(cohort, 8, code="fixed", **options)
    step = np.arange(8)
    expected = 2e-3 * np.minimum(1, (step + 1) / max(1, warmup))
    if decay:
        expected = expected * (0.55 + 0.45 * np.cos(np.pi * step / 8))
    assert [lr for lr, _ in watch.optimizer] == pytest.approx(expected.tolist())
    assert {betas for _, betas in watch.optimizer} == {(0.8, 0.95)}
