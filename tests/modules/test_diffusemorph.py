"""Stage 1 on small blobs: what its passes return, and that training moves the right way."""

import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.losses import local_ncc
from cortexgen.modules import DiffuseMorphModule
from cortexgen.modules.diffusemorph import RUN_TIME
from cortexgen.nets import Denoised
from cortexgen.spatial import antialias, compose, folded, identity, integrate, jacobian_determinant, sample, warp

SHAPE = (15, 18, 13)


@pytest.fixture
def pair():
    """A textured image and the same one shifted by 1.5 voxels along H."""
    generator = torch.Generator().manual_seed(0)
    texture = antialias(torch.rand(1, 1, *SHAPE, generator=generator), (4, 4, 4))
    moving = (texture - texture.min()) / (texture.max() - texture.min())
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 1] = 1.5
    return moving, warp(moving, shift), shift


def small(**options):
    torch.manual_seed(0)
    defaults = {
        "denoiser_width": 4,
        "denoiser_multipliers": (1, 2),
        "encoder": (8, 8),
        "decoder": (8, 8),
        "ncc_window": 5,
    }
    return DiffuseMorphModule(**defaults | options)


FINAL = {"passes": 2, "force": True, "clean": 0.5, "foreground": True, "symmetric": True, "folding_weight": 100.0}


PAPER = {"field_downsample": 1, "integration_steps": 0}


@pytest.mark.parametrize(
    ("code", "options"),
    [
        *((code, options) for code in ("eps", "eps+fixed", "fixed") for options in (PAPER, {})),
        *((code, FINAL) for code in ("features+fixed", "fixed")),
    ],
)
def test_training_learns_the_shift(code, options, pair):
    moving, fixed, shift = pair
    module = small(code=code, smoothness_weight=0.05, denoiser_patch=2 if "features" in code else 1, **options)
    assert module.register(moving, fixed).displacement.abs().max() < 0.01  # starts at the identity
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        module._losses({"moving": moving, "fixed": fixed})["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)  # as register.yaml does
        optimizer.step()
    result = module.register(moving, fixed)
    before, after = (local_ncc(image, fixed, 5) for image in (moving, result.warped))
    assert after > before + 0.25 * (1 - before)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    error = (result.displacement - shift)[inside].norm(dim=1).mean()
    assert error < 0.75 * shift[inside].norm(dim=1).mean()


def test_register_returns_a_field_its_inverse_and_the_warped_image(pair):
    moving, fixed, _ = pair
    module = small(field_downsample=2)
    torch.nn.init.normal_(module.head.flow.weight, std=0.1)
    result = module.register(moving, fixed)
    assert result.velocity.shape == (1, 3, 8, 9, 7) and result.displacement.shape == (1, 3, *SHAPE)
    assert torch.equal(result.warped, warp(moving, result.displacement))
    assert result.displacement.abs().max() > 0.1
    assert compose(result.displacement, result.inverse).norm(dim=1).mean() < 0.02


def test_the_papers_displacement_comes_with_its_inverse(pair):
    """Not with its negative: labels warped there and back are where they were, log |J| is that of the way back."""
    moving, *_ = pair
    module = small(**PAPER)
    push = antialias(torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(3)), (5, 5, 5))
    displacement = integrate(0.6 * push / push.std())
    assert not folded(displacement)
    result = module._aligned(moving, displacement)
    assert torch.equal(result.displacement, displacement)
    assert compose(displacement, result.inverse).abs().max() < 1e-5
    assert compose(displacement, -displacement).abs().max() > 0.1
    places = identity(SHAPE) + result.inverse
    growth = jacobian_determinant(result.inverse) * sample(jacobian_determinant(displacement), places)
    assert (growth - 1)[..., 2:-2, 2:-2, 2:-2].abs().mean() < 0.03


def test_refinement_improves_this_pair(pair):
    moving, fixed, _ = pair
    module = small(refine_smoothness=0.05)
    plain, refined = module.register(moving, fixed), module.register(moving, fixed, refine=30)
    before, after = (local_ncc(r.warped, fixed, 5) for r in (plain, refined))
    assert after > before + 0.2 * (1 - before)
    assert all(p.grad is None for p in module.parameters())


def test_continuous_path_starts_where_the_code_is_silent(pair):
    """Algorithm 1: eta scales the code; 1 is the registration, 0 what the head says to a zero code."""
    moving, fixed, _ = pair
    module = small()
    torch.nn.init.normal_(module.head.flow.weight, std=0.1)
    frames = list(module.continuous(moving, fixed, [0.0, 0.5, 1.0]))
    assert torch.equal(frames[2].displacement, module.register(moving, fixed).displacement)
    silent = module.velocity(moving, fixed, Denoised(torch.zeros_like(fixed), torch.zeros(1)))
    assert torch.allclose(frames[0].velocity, silent)
    assert not torch.allclose(frames[1].velocity, frames[2].velocity)


def test_synthesis_with_the_true_noise_undoes_the_diffusion(pair, monkeypatch):
    """Algorithm 2 with G replaced by the noise that leads back to the fixed image must end at the fixed image."""
    moving, fixed, _ = pair
    module = small()

    def oracle(moving, fixed, x, t):
        bar = module.schedule.alpha_bar[t].float().view(-1, 1, 1, 1, 1)
        return Denoised((x - bar.sqrt() * (2 * fixed - 1)) / (1 - bar).sqrt(), x)

    monkeypatch.setattr(module, "denoise", oracle)
    states = []
    out = module.synthesize(moving, fixed, 200, torch.Generator().manual_seed(1), states)
    assert [t for t, _ in states] == [200, 160, 120, 80, 40]
    assert torch.allclose(out, fixed, atol=1e-3)
    with pytest.raises(UserError, match="expected 1 to 2000"):
        module.synthesize(moving, fixed, steps=2001)


def test_voxelmorph_alone_has_no_denoiser(pair):
    moving, fixed, _ = pair
    module = small(code="fixed")
    assert module.denoiser is None
    with pytest.raises(UserError, match="no denoising network"):
        module.synthesize(moving, fixed)


def test_run_time_options_are_no_hyper_parameters():
    assert not set(RUN_TIME) & set(small(refine=5, frames=3, synthesis=2).hparams)


def test_velocity_path_goes_from_the_identity_to_the_registration(pair):
    moving, fixed, _ = pair
    module = small(passes=2, force=True)
    torch.nn.init.normal_(module.head.flow.weight, std=0.1)
    first, half, last = module.continuous(moving, fixed, [0.0, 0.5, 1.0], path="velocity")
    assert torch.equal(first.warped, warp(moving, torch.zeros(1, 3, *SHAPE)))
    assert torch.equal(last.displacement, module.register(moving, fixed).displacement)
    twice = compose(half.displacement, half.displacement)  # exp(v / 2)² = exp(v)
    assert (twice - last.displacement).norm(dim=1).mean() < 0.02


def test_features_need_the_velocitys_grid():
    with pytest.raises(ValueError, match="denoiser_patch = field_downsample"):
        small(code="features+fixed", denoiser_patch=1)
