import numpy as np
import pytest
import torch
from monai.metrics import MMDMetric
from sklearn.metrics.pairwise import polynomial_kernel as sklearns_polynomial
from torchmetrics.image.kid import poly_mmd

from cortexgen.errors import UserError
from cortexgen.metrics.mmd import (
    gram_matrices,
    mmd2,
    polynomial_kernel,
    published_feature_mmd,
    published_image_mmd,
    unbiased_mmd2,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair_distance(x, y):
    """The statistic of two rows of each kind as it is written: kernel sums over B² = 4."""
    return float((x @ x.T).sum() + (y @ y.T).sum() - 2 * (x @ y.T).sum()) / 4


def test_unbiased_mmd_by_brute_force():
    x, y = normal(5, 3), normal(4, 3, seed=1) + 1

    def k(a, b):
        return float(a @ b / 3 + 1) ** 3

    within_x = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert mmd2(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-12)


def test_polynomial_mmd_is_torchmetrics_kid():
    x, y = normal(30, 16), normal(30, 16, seed=1) + 0.3
    assert mmd2(x.float(), y.float()) == pytest.approx(float(poly_mmd(x, y)), rel=1e-5)


def test_the_kernel_is_sklearns():
    x, y = normal(6, 10), normal(7, 10, seed=1)
    np.testing.assert_allclose(polynomial_kernel(x, y), sklearns_polynomial(x, y, degree=3, gamma=0.1, coef0=1))


def test_unbiased_mmd_is_0_on_average_for_one_distribution_and_sees_mode_collapse():
    values = torch.tensor([mmd2(normal(20, 6, seed=k), normal(30, 6, seed=k + 900)) for k in range(300)])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 300**0.5
    real = normal(200, 6)
    assert mmd2(real, real.mean(dim=0).expand(200, 6)) > 5 * abs(mmd2(real, normal(200, 6, seed=1)))


def test_the_published_feature_mmd_as_it_is_written():
    for n in (6, 7, 2):
        real, synthetic = normal(n, 5), normal(n, 5, seed=1) + 0.2
        total = 0.0
        for _ in range(10):
            for i in range(0, n, 2):
                total += pair_distance(real[i : i + 2], synthetic[i : i + 2])
        assert published_feature_mmd(real, synthetic) == pytest.approx(total / (10 * (i + 1)), rel=1e-12)


def test_quirk_the_published_feature_mmd_is_half_the_mean_over_pairs():
    real, synthetic = normal(400, 5), normal(400, 5, seed=1)
    mean = np.mean([pair_distance(real[i : i + 2], synthetic[i : i + 2]) for i in range(0, 400, 2)])
    assert published_feature_mmd(real, synthetic) == pytest.approx(mean / 2 * 400 / 399)


def test_quirk_linear_mmd_with_b_2_rewards_mode_collapse():
    """Its expectation is the squared difference of means plus half of both traces: a constant has a trace of 0."""
    real, perfect = normal(4000, 50), normal(4000, 50, seed=1)
    collapsed = real.mean(dim=0).expand(4000, 50)
    scores = [published_feature_mmd(real, synthetic) for synthetic in (perfect, collapsed)]
    assert scores == pytest.approx([(50 + 50) / 4, 50 / 4], rel=0.03)  # a half of (Tr + Tr) / 2
    assert scores[1] < scores[0]
    assert mmd2(real[:500], collapsed[:500]) > 0.01 > abs(mmd2(real[:500], perfect[:500]))  # the standard one does not

    grams = gram_matrices(list(real[:300, None]), list(perfect[:300, None]))
    constant = gram_matrices(list(real[:300, None]), list(collapsed[:300, None]))
    assert published_image_mmd(constant) < 0.6 * published_image_mmd(grams)
    assert unbiased_mmd2(*constant) < 0.3  # the mean is right: a linear kernel sees no more than that


def test_quirk_linear_mmd_with_b_2_is_not_0_for_the_same_brains():
    real = normal(100, 20)
    assert published_feature_mmd(real, real.roll(2, dims=0)) > 5
    assert published_feature_mmd(real, real) == 0  # but depends on the files' order


def volumes(n, seed=0, shape=(1, 5, 6, 4)):
    return list(normal(n, *shape, seed=seed).float() + 1)


def test_gram_matrices_by_brute_force_whatever_the_blocks():
    real, synthetic = volumes(7), volumes(5, seed=1)
    x, y = (torch.stack(v).flatten(1).double() for v in (real, synthetic))
    for block in (3, 4, 64):
        grams = gram_matrices(real, synthetic, block)
        for found, expected in zip(grams, (x @ x.T, y @ y.T, x @ y.T), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_gram_matrices_read_in_blocks():
    class Reader:
        """Counts how often volumes are read."""

        def __init__(self, items):
            self.items, self.reads = items, 0

        def __len__(self):
            return len(self.items)

        def __getitem__(self, index):
            self.reads += 1
            return self.items[index]

    real, synthetic = Reader(volumes(8)), Reader(volumes(8, seed=1))
    gram_matrices(real, synthetic, block=4)
    assert (real.reads, synthetic.reads) == (1 + 4 + 2 * 4, 3 * 4 + 4 * 4)  # for the size; by each block up to its own


def test_unbiased_linear_mmd_is_monais():
    real, synthetic = volumes(6), volumes(6, seed=1)
    grams = gram_matrices(real, synthetic)
    expected = float(MMDMetric()(torch.stack(real).flatten(1), torch.stack(synthetic).flatten(1)))
    assert unbiased_mmd2(*grams) == pytest.approx(expected, rel=1e-4)


def test_the_published_image_mmd_as_it_is_written():
    real, synthetic = volumes(5), volumes(6, seed=1)
    x, y = (torch.stack(v).flatten(1).double() for v in (real, synthetic))
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    every = [pair_distance(x[[a, b]], y[i : i + 2]) for i in range(5) for a, b in pairs]
    grams = gram_matrices(real, synthetic)
    assert published_image_mmd(grams, passes=20000) == pytest.approx(np.mean(every), rel=0.005)
    assert (
        published_image_mmd(grams, seed=1) == published_image_mmd(grams, seed=1) != published_image_mmd(grams, seed=2)
    )
    two = gram_matrices(real[:2], synthetic[:2])
    assert published_image_mmd(two) == pytest.approx(pair_distance(x[:2], y[:2]), rel=1e-4)


def test_quirk_the_published_image_mmd_grows_with_grid_and_range():
    real, synthetic = volumes(6), volumes(6, seed=1)
    score = published_image_mmd(gram_matrices(real, synthetic))
    doubled = published_image_mmd(gram_matrices([2 * v for v in real], [2 * v for v in synthetic]))
    tiled = published_image_mmd(
        gram_matrices([v.repeat(1, 1, 3, 1) for v in real], [v.repeat(1, 1, 3, 1) for v in synthetic])
    )
    assert (doubled, tiled) == (pytest.approx(4 * score, rel=1e-4), pytest.approx(3 * score, rel=1e-4))


def test_errors_name_what_is_wrong():
    x = normal(6, 3)
    with pytest.raises(UserError, match="2 or more brains of each kind, got 6 and 1"):
        mmd2(x, x[:1])
    with pytest.raises(ValueError, match=r"expected features \[N, F\] and \[M, F\]"):
        mmd2(x, x[:, :2])
    with pytest.raises(UserError, match="as many brains of each kind, got 6 and 4"):
        published_feature_mmd(x, x[:4])
    with pytest.raises(ValueError, match="expected kernel matrices"):
        unbiased_mmd2(x @ x.T, x @ x.T, x)
    with pytest.raises(ValueError, match="volumes differ in size: 120 and 60 voxels"):
        gram_matrices(volumes(2), volumes(2, shape=(1, 5, 3, 4)))
    with pytest.raises(UserError, match="2 or more brains of each kind, got 1 and 3"):
        published_image_mmd(gram_matrices(volumes(1), volumes(3)))
