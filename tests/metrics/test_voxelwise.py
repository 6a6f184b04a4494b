import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.metrics.voxelwise import log_jacobian_shift, log_jacobian_spread

GRID = (6, 7, 8)
MASK = torch.zeros(1, *GRID, dtype=torch.bool)
MASK[:, 1:-1, 1:-1, 1:-1] = True


@pytest.fixture
def real():
    return torch.randn(12, 1, *GRID, generator=torch.Generator().manual_seed(0))


def test_samples_of_half_the_spread_and_another_mean(real):
    generated = 0.5 * real + 0.2
    spread, shift = log_jacobian_spread(real, generated, MASK), log_jacobian_shift(real, generated, MASK)
    torch.testing.assert_close(spread[MASK], torch.full((int(MASK.sum()),), 0.5))
    torch.testing.assert_close(shift[MASK], (0.2 - 0.5 * real.mean(dim=0))[MASK])


def test_outside_the_mask_is_nan_and_does_not_count(real):
    generated = torch.where(MASK, real, 100 * real + 1)
    for result, same in ((log_jacobian_spread(real, generated, MASK[0]), 1), (log_jacobian_shift(real, real, MASK), 0)):
        assert result.shape == (1, *GRID)
        assert torch.equal(result.isnan(), ~MASK)
        assert (result[MASK] == same).all()


def test_errors_name_what_is_wrong(real):
    for compare in (log_jacobian_spread, log_jacobian_shift):
        with pytest.raises(ValueError, match="mask of that grid"):
            compare(real, real[..., 1:], MASK)
        with pytest.raises(ValueError, match="mask of that grid"):
            compare(real, real, MASK[..., 1:])
        with pytest.raises(UserError, match="2 or more brains of each kind, got 12 and 1"):
            compare(real, real[:1], MASK)
        with pytest.raises(UserError, match="mask is empty"):
            compare(real, real, MASK & False)
