"""cDPM's draws with a network that knows the noise, and which slices it learns from."""

import math

import pytest
import torch
from torch import Tensor, nn

from cortexgen.diffusion import alpha_sigma
from cortexgen.io import Grid
from cortexgen.modules.baselines import CDPM
from cortexgen.modules.baselines.cdpm import slices_to_draw, slices_to_learn

SHAPE = (23, 8, 8)


class Oracle(nn.Module):
    """The noise in slices of a volume that it knows."""

    def __init__(self, volume: Tensor, module: CDPM) -> None:
        super().__init__()
        self.volume, self.module = volume, module
        self.seen: list[tuple[list[int], list[bool], Tensor]] = []

    def forward(self, z: Tensor, observed: Tensor, places: Tensor, t: Tensor) -> Tensor:
        self.seen.append((places[0].tolist(), observed[0].tolist(), z[0].clone()))
        alpha, sigma = alpha_sigma(self.module.schedule.log_snr(t))
        x0 = self.volume[places[0]][None]
        return (z - alpha.view(-1, 1, 1, 1) * x0) / sigma.view(-1, 1, 1, 1)


@pytest.fixture
def oracle() -> CDPM:
    module = CDPM(scale=0.1, multipliers=[1, 2], blocks=1, slices=8)
    module.contract = {"grid": Grid(SHAPE, torch.eye(4, dtype=torch.float64).numpy()).to_dict()}
    volume = 2 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) - 1
    module.net = Oracle(volume, module)  # type: ignore[assignment]
    return module


@pytest.mark.parametrize("sampler, steps", [("ddim", 5), ("ddim", 1000), ("dpm++", 10), ("ancestral", 50)])
def test_a_network_that_knows_the_volume_draws_it(oracle: CDPM, sampler: str, steps: int) -> None:
    oracle.sampler, oracle.steps = sampler, steps  # type: ignore[assignment]
    drawn = oracle.sample(torch.Generator().manual_seed(2), {})
    net: Oracle = oracle.net  # type: ignore[assignment]
    assert torch.allclose(drawn[0], (net.volume + 1) / 2, atol=2e-3)


def test_slices_that_are_observed_stay_and_are_seen_clean(oracle: CDPM) -> None:
    oracle.sampler, oracle.steps = "ddim", 4
    oracle.sample(torch.Generator().manual_seed(2), {})
    net: Oracle = oracle.net  # type: ignore[assignment]
    assert {len(places) for places, _, _ in net.seen} <= {8, 7}
    for places, observed, z in net.seen:
        for place, known, one in zip(places, observed, z, strict=True):
            if known:
                assert torch.allclose(one, net.volume[place], atol=2e-3)
    given = torch.rand(1, 4, 8, 8) * 2 - 1
    observed = torch.tensor([[True, False, True, False]])
    out = oracle.inpaint(given, torch.tensor([[3, 4, 5, 6]]), observed, torch.Generator().manual_seed(0))
    assert torch.equal(out[0, [0, 2]], given[0, [0, 2]]) and not torch.allclose(out[0, 1], given[0, 1], atol=0.1)


@pytest.mark.parametrize("count, most", [(23, 8), (8, 8), (5, 8), (90, 20), (21, 20)])
def test_every_slice_is_drawn_once_given_those_before(count: int, most: int) -> None:
    done: list[int] = []
    for known, new in slices_to_draw(count, most):
        assert set(known) <= set(done) and not set(new) & set(done)
        assert len(known) + len(new) <= most
        done += new
    assert done == list(range(count))


def test_spacings_are_log_uniform() -> None:
    """Of groups of two slices, the spacing's logarithm is uniform up to that of the whole volume."""
    spacings, random = [], torch.Generator().manual_seed(0)
    for _ in range(4000):
        places, observed = slices_to_learn(100, 2, random)
        assert places == sorted(set(places)) and len(places) == 2 and not all(observed)
        spacings.append(places[1] - places[0])
    shares = [sum(low <= s < high for s in spacings) / 4000 for low, high in ((10, 32), (32, 100))]
    expected = math.log(32 / 10) / math.log(99)
    # half of the pairs are two single slices, far apart as such are; the others are evenly spread in the logarithm
    single = [sum((100 - d) * 2 / (100 * 99) for d in range(low, high)) for low, high in ((10, 32), (32, 100))]
    assert shares[0] == pytest.approx(expected / 2 + single[0] / 2, abs=0.05)
    assert shares[1] == pytest.approx(expected / 2 + single[1] / 2, abs=0.05)
