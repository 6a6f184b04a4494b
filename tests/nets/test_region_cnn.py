"""Features are means in their regions, and say nothing of the others."""

import torch
from torch.nn.functional import adaptive_avg_pool3d, one_hot

from cortexgen.nets import RegionCNN

SHAPE = (16, 12, 40)


def network() -> RegionCNN:
    torch.manual_seed(0)
    return RegionCNN(3, 4, widths=(4, 6, 8, 8, 8), kept=(2, 3)).eval()


def halves() -> torch.Tensor:
    labels = torch.zeros(SHAPE, dtype=torch.long)
    labels[..., 4:16], labels[..., 24:36] = 1, 2
    return one_hot(labels, 3).permute(3, 0, 1, 2).float()


def test_means_are_those_of_each_region() -> None:
    net, regions, x = network(), halves(), torch.rand(2, 1, *SHAPE)
    fine = net.mix[0](net.fine(x)).relu()
    weights = adaptive_avg_pool3d(regions, fine.shape[2:])
    expected = (fine[1, 0] * weights[2]).sum() / weights[2].sum()
    found = net.means(x, net.weights(regions)).unflatten(1, (3, 5))
    torch.testing.assert_close(found[1, 2, 0], expected)


def test_a_region_is_not_told_of_what_is_far_away() -> None:
    net, regions, x = network(), halves(), torch.rand(1, 1, *SHAPE)
    other = x.clone()
    other[..., 38:] = 0
    before, after = (net.means(each, net.weights(regions)).unflatten(1, (3, 5)) for each in (x, other))
    torch.testing.assert_close(before[:, 1], after[:, 1])
    assert not torch.allclose(before[:, 0], after[:, 0]) and not torch.allclose(before[:, 2], after[:, 2])


def test_features_are_standardized_by_the_training_brains() -> None:
    net, regions = network().train(), halves()
    x = torch.rand(16, 1, *SHAPE) * torch.linspace(0.5, 1, 16).view(-1, 1, 1, 1, 1)
    for _ in range(60):
        net(x, net.weights(regions))
    features = net.eval().standardized(net.means(x, net.weights(regions)))
    alive = net.variance > 1e-5
    assert int(alive.sum()) > 5
    torch.testing.assert_close(features.mean(dim=0)[alive], torch.zeros(int(alive.sum())), atol=0.05, rtol=0)
    torch.testing.assert_close(features.std(dim=0, correction=0)[alive], torch.ones(int(alive.sum())), atol=0.1, rtol=0)
    kept = net.mean.clone()
    net(0.5 * x, net.weights(regions))
    assert torch.equal(net.mean, kept)  # not in inference
