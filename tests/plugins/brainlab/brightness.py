"""A metric: how bright a set's brains are."""

from torch import Tensor

from cortexgen.evaluation.comparison import Metric


def mean_intensity(image: Tensor) -> float:
    """Of a brain `[1, D, H, W]`, inside."""
    return float(image[image > 0].mean())


def ratio(real: Tensor, synthetic: Tensor) -> float:
    """Of the means over brains."""
    return float(synthetic.mean() / real.mean())


TITLE = "Mean intensity, ratio of means"
BRIGHTNESS = Metric("brightness", TITLE, "image", ratio, mean_intensity, 1.0, heading="Brightness", card="brightness")
