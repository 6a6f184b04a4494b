import hashlib

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, gaussian_filter
from torch.nn.functional import avg_pool3d, conv3d

from cortexgen.errors import UserError
from cortexgen.metrics.features import extract_features
from cortexgen.metrics.frechet import frechet_distance
from cortexgen.metrics.random_features import RandomFeatures


def brains(n, seed=0):
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.standard_normal((n, 24, 28, 24)), (0, 1, 1, 1))
    return torch.from_numpy((blobs - blobs.min()) / np.ptp(blobs)).float()[:, None]


def distance(a, b):
    network = RandomFeatures()
    return frechet_distance(*(extract_features(network, volumes) for volumes in (a, b)))


def test_its_weights_are_the_same_everywhere():
    expected = "c6d95193888bad614685c2619773096885d07e734856799fe19fd19e18d99741"
    network = RandomFeatures()
    assert network.sha256 == RandomFeatures(0).sha256 == expected
    assert RandomFeatures(1).sha256 != expected
    digest = hashlib.sha256()
    for weight, bias in zip(network.weights, network.biases, strict=True):
        digest.update(weight.numpy().tobytes() + bias.numpy().tobytes())
    assert digest.hexdigest() == expected
    assert network.label == f"random-conv-v1-seed0 (sha256 {expected}, untrained)"


def test_it_is_never_called_fid():
    network = RandomFeatures()
    assert not any("FID" in text for text in (network.name, network.label, network.distance))


def test_the_first_features_by_scipy():
    network, volume = RandomFeatures(), brains(1)
    features = network(volume)[0]
    assert features.shape == (480,)
    for channel in (0, 7, 15):
        kernel = network.weights[0][channel, 0].numpy()[::-1, ::-1, ::-1]
        made = convolve(volume[0, 0].numpy(), kernel, mode="constant") + float(network.biases[0][channel])
        made = np.maximum(made, 0)
        assert float(features[channel]) == pytest.approx(made.mean(), abs=1e-5)
        assert float(features[16 + channel]) == pytest.approx(made.std(ddof=1), abs=1e-5)


@pytest.mark.parametrize("shape", [(33, 17, 18), (16, 20, 16), (47, 19, 16)])
def test_features_are_those_of_whole_answers(shape):
    network = RandomFeatures().double()
    x = torch.rand(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, y = [], x
    for scale, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        y = torch.relu(conv3d(y if not scale else avg_pool3d(y, 2), weight, bias, padding=1))
        expected += [y.mean(dim=(2, 3, 4)), y.std(dim=(2, 3, 4))]
    assert torch.allclose(RandomFeatures()(x), torch.cat(expected, dim=1).float(), rtol=1e-4, atol=1e-6)


def test_distances_grow_with_blur_and_noise():
    real, others = brains(40).split(20)
    blurred = [torch.from_numpy(gaussian_filter(others.numpy(), (0, 0, s, s, s))) for s in (0.5, 1.0, 2.0)]
    noisy = [others + s * torch.randn(others.shape, generator=torch.Generator().manual_seed(0)) for s in (0.02, 0.1)]
    for damaged in (blurred, noisy):
        scores = [distance(real, others), *(distance(real, volumes) for volumes in damaged)]
        assert scores == sorted(scores) and scores[-1] > 5 * scores[0]


def test_small_grids_are_refused():
    with pytest.raises(UserError, match="16 voxels a side"):
        RandomFeatures()(torch.zeros(1, 1, 15, 20, 20))
