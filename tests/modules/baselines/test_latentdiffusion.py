"""MONAI's latent diffusion: its two parts, what MONAI does of it, and a training that is interrupted in the second."""

import pytest
import torch
from monai.inferers import LatentDiffusionInferer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import nn

from cortexgen.errors import UserError
from cortexgen.modules.baselines import LatentDiffusion

SMALL = {"scale": 0.06, "channels": (64, 128), "unet_channels": (64, 128), "latents": 3}
TINY = ["--model.scale", 0.06, "--model.channels", "[64,128]", "--model.unet_channels", "[64,128]"]
TINY += ["--model.lr", 1e-3, "--trainer.limit_train_batches", 1.0, "--trainer.max_epochs", -1]


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = LatentDiffusion(**SMALL, steps=7).eval()
    module.contract = {"grid": {"shape": [9, 10, 7], "affine": torch.eye(4).tolist(), "codes": "RAS"}}
    return module


def test_monai_makes_noise_and_takes_it_away(module):
    module.latent_scale.fill_(0.5)
    inferer = module.inferer
    assert isinstance(inferer, LatentDiffusionInferer) and isinstance(inferer.scheduler, DDPMScheduler)
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    torch.testing.assert_close(inferer.scheduler.betas, betas)


def test_a_denoiser_that_knows_the_latents_draws_what_they_decode_to(module, monkeypatch):
    """DDIM in so many steps, the scale taken away, and the padding cut off."""
    assert module.latent_shape((9, 10, 7)) == (3, 6, 6, 4)
    latents, alpha_bar, calls = torch.randn(1, 3, 6, 6, 4), module.scheduler.alphas_cumprod, []
    step = DDIMScheduler.step

    class Oracle(nn.Module):
        def forward(self, x, timesteps, context=None):
            a = alpha_bar[timesteps.long()]
            return (x - a.sqrt() * latents) / (1 - a).sqrt()

    monkeypatch.setattr(DDIMScheduler, "step", lambda self, *args: calls.append(1) or step(self, *args))
    module.denoiser = Oracle()
    with pytest.raises(UserError, match="no denoiser yet; train longer"):
        module.sample(torch.Generator().manual_seed(0), {})
    module.latent_scale.fill_(0.5)
    with torch.no_grad():
        drawn = module.sample(torch.Generator().manual_seed(0), {})
        expected = module.autoencoder.decode(latents / 0.5)[0, :, :9, :10, :7]
    torch.testing.assert_close(drawn, expected, atol=1e-3, rtol=1e-3)
    assert len(calls) == 7
    module.steps = 1001
    with pytest.raises(UserError, match="steps: expected 1 to 1000, got 1001"):
        module.sample(torch.Generator().manual_seed(0), {})


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    mean, deviation = torch.randn(2, 3, 4, 4, 4), torch.rand(2, 3, 4, 4, 4) + 0.1
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0))
    torch.testing.assert_close(LatentDiffusion._divergence(mean, deviation), each.sum() / 2)


def test_bfloat16_latents_leave_the_schedule_as_it_is(module):
    module.latent_scale.fill_(0.5)
    x = module.padded(torch.rand(1, 1, 9, 10, 7))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        module._denoising(x, torch.tensor([0.3]), torch.randn(1, *module.latent_shape(x.shape[2:])))
    assert module.scheduler.alphas_cumprod.dtype == torch.float32


def weights(path):
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def part(state, name):
    return torch.cat([value.flatten() for key, value in state.items() if key.startswith(f"{name}.")])


def test_a_training_goes_on_in_the_part_that_it_was_in(cohort, verb, tmp_path):
    def fit(steps, *more):
        where = ("--data.root", cohort, "--trainer.default_root_dir", tmp_path)
        verb("fit", "baselines/latentdiffusion.yaml", *where, *TINY, "--trainer.max_steps", steps, *more)
        return weights(tmp_path)

    first = fit(4)
    assert first["latent_scale"] > 0
    second = fit(12, "--ckpt_path", "last")  # of which a third is spent, less than the autoencoder's half
    assert torch.equal(second["latent_scale"], first["latent_scale"])
    assert torch.equal(part(second, "autoencoder"), part(first, "autoencoder"))
    assert not torch.equal(part(second, "denoiser"), part(first, "denoiser"))
