import pytest

from cortexgen.errors import UserError
from cortexgen.preprocess import Align, CorrectBias, Crop, Denoise, Normalize, Resample, StripSkull


@pytest.mark.parametrize(
    "make",
    [
        lambda: StripSkull("maybe"),
        lambda: Denoise("Poisson"),
        lambda: Denoise(patch=0),
        lambda: CorrectBias(spacing=0),
        lambda: CorrectBias(iterations=[]),
        lambda: Align("sometimes"),
        lambda: Resample(0),
        lambda: Resample(shape=[256, 256]),
        lambda: Normalize(high=101),
        lambda: Normalize(high=5, low=50),
        lambda: Crop([32, 128]),
        lambda: Crop("head"),
    ],
)
def test_an_option_that_cannot_be_is_refused(make):
    with pytest.raises(UserError, match="expected"):
        make()
