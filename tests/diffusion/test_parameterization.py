import pytest
import torch

from cortexgen.diffusion import diffuse, to_eps, to_x0, training_target

LOG_SNR = torch.tensor([-8.0, -2.0, 0.0, 3.0, 8.0])


def _draw():
    return torch.randn(2, 5, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_target_leads_back_to_the_field_and_the_noise(prediction):
    x0, noise = _draw()
    z = diffuse(x0, noise, LOG_SNR)
    target = training_target(x0, noise, LOG_SNR, prediction)
    clean = to_x0(target, z, LOG_SNR, prediction)
    torch.testing.assert_close(clean, x0, atol=1e-4, rtol=0)
    torch.testing.assert_close(to_eps(x0, z, LOG_SNR), noise, atol=1e-4, rtol=0)


def test_v_is_the_velocity_along_the_angle_of_diffusion():
    x0, noise = _draw()
    angle, h = torch.tensor([0.1, 0.4, 0.8, 1.2, 1.5], dtype=torch.float64), 1e-2

    def z(phi):
        return diffuse(x0, noise, -2 * torch.tan(phi).log())

    v = training_target(x0, noise, -2 * torch.tan(angle).log(), "v")
    torch.testing.assert_close((z(angle + h) - z(angle - h)) / (2 * h), v, atol=1e-3, rtol=0)


def test_x0_and_eps_targets_are_the_ends_of_the_path():
    x0, noise = _draw()
    assert torch.equal(training_target(x0, noise, LOG_SNR, "x0"), x0)
    assert torch.equal(training_target(x0, noise, LOG_SNR, "eps"), noise)
    far = torch.full((5,), 20.0)
    torch.testing.assert_close(training_target(x0, noise, far, "v"), noise, atol=1e-3, rtol=0)
    torch.testing.assert_close(training_target(x0, noise, -far, "v"), -x0, atol=1e-3, rtol=0)


def test_clip_bounds_what_noise_prediction_blows_up():
    x0, noise = _draw()
    log_snr = torch.full((5,), -20.0)
    z = diffuse(x0, noise, log_snr)
    output = noise + 0.01
    assert to_x0(output, z, log_snr, "eps").abs().max() > 100
    clipped = to_x0(output, z, log_snr, "eps", clip=4.0)
    assert torch.equal(clipped, torch.full_like(clipped, -4.0))
    for prediction in ("v", "x0"):
        target = training_target(x0, noise, log_snr, prediction)
        torch.testing.assert_close(to_x0(target, z, log_snr, prediction, clip=1.0), x0.clamp(-1, 1), atol=1e-3, rtol=0)
