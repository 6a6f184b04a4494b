import math

import pytest
import torch

from cortexgen.metrics.spectrum import radial_power


@pytest.mark.parametrize("waves, shell", [(1, 0), (5, 2), (8, 4)])
def test_a_plane_wave_is_in_one_shell(waves, shell):
    n = 20  # Nyquist's frequency is 10 waves; shells of 5 are 2 waves wide
    x = torch.arange(n) / n
    image = torch.cos(2 * math.pi * waves * x).expand(1, n, n, n)
    power = radial_power(image, [2.0, 2.0, 2.0], bands=5)
    assert int(power.argmax()) == shell
    assert float(power[shell] / power.sum()) > 1 - 1e-9


def test_white_noise_is_white_and_has_its_variance():
    image = 0.3 * torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    power = radial_power(image, [1.0] * 3)  # the first shell has few frequencies
    torch.testing.assert_close(power[1:], torch.full((5,), 0.09).double(), rtol=0.15, atol=0)


def test_energy_is_parsevals():
    image = torch.randn(1, 9, 8, 7, generator=torch.Generator().manual_seed(1)).double()
    freq = [torch.fft.fftfreq(n).double() for n in (9, 8, 7)]
    norm = torch.stack(torch.meshgrid(*freq, indexing="ij")).square().sum(0).sqrt()
    inside = (norm / 0.5 * 4).floor() < 4
    spectrum = torch.fft.fftn(image[0]).abs().square() / image.numel()
    counts = torch.bincount((norm / 0.5 * 4).floor().long()[inside], minlength=4)
    torch.testing.assert_close(float((radial_power(image, [1.0] * 3, 4) * counts).sum()), float(spectrum[inside].sum()))


def test_the_coarsest_axis_sets_the_end():
    n = 24
    x = torch.arange(n) / n
    image = torch.cos(2 * math.pi * 11 * x).view(1, 1, 1, n).expand(1, n, n, n)  # along W, of 1 mm: 11 / 24 a mm
    power = radial_power(image, [2.0, 2.0, 1.0], bands=5)  # ends at 1 / 4 a mm
    assert float(power.sum()) < 1e-9
