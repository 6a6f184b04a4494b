import pytest
import torch
from scipy import ndimage

from cortexgen.preprocess import CorrectBias, Subject


def variation(values):
    return float(values.std() / values.mean())


@pytest.mark.parametrize("masked", [True, False])
def test_n4_takes_a_shading_that_was_put_in(template, masked):
    up, ahead = (torch.linspace(-1, 1, n) for n in template.grid.shape[:2])
    bias = torch.exp(0.2 * up.view(1, -1, 1, 1) + 0.35 * ahead.view(1, 1, -1, 1)).expand(template.image.shape)
    deep = torch.from_numpy(ndimage.binary_erosion(template.mask[0].numpy(), iterations=2))[None]
    results = []
    for shading in (torch.ones_like(bias), bias):
        subject = Subject(1000 * template.image * shading, template.grid, template, "scan")
        if masked:
            subject.keep(template.mask)
        CorrectBias(spacing=6, iterations=[30, 30])(subject)
        results.append(subject.image[deep])
    assert variation(results[1] / results[0]) < 0.15 * variation(bias[deep])
