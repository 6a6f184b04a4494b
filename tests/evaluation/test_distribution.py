"""Distances between sets of images, against their definitions on the files themselves."""

import pickle
from copy import copy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cortexgen.errors import UserError
from cortexgen.evaluation import distribution as dist
from cortexgen.evaluation import images
from cortexgen.evaluation.comparison import Metric, Protocol
from cortexgen.evaluation.copies import coarse_images
from cortexgen.evaluation.frame import Frame, frame
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store
from cortexgen.metrics.classifier import decisions, told_apart, told_apart_auc
from cortexgen.metrics.features import paper_input
from cortexgen.metrics.medicalnet import MedicalNet
from cortexgen.metrics.ms_ssim import ms_ssim, published_ms_ssim
from cortexgen.metrics.random_features import RandomFeatures
from cortexgen.metrics.resampling import Interval
from cortexgen.runner.cohort import HERE, Runner

SIDE = 36


def _set(root: Path, n: int, seed: int, brightness: float = 1.0) -> Store:
    """Balls of various sizes and textures."""
    root.mkdir()
    rng = np.random.default_rng(seed)
    axes = np.arange(SIDE) - (SIDE - 1) / 2
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(axes, axes, axes, indexing="ij")))
    for k in range(n):
        inside = radius < rng.uniform(13, 17)
        image = inside * np.clip(brightness * (0.6 + 0.1 * rng.normal(size=radius.shape)), 0.06, 1)
        affine = np.diag([4.0, 4, 4, 1])
        affine[:3, 3] = -2.0 * (SIDE - 1)
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), root / f"{k:02d}.nii.gz")
    store = Store(root.name, BrainSet(root, rescale=False), root.parent / "work" / root.name)
    store.fill()
    return store


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store, Frame]:
    """Eight real, six dimmer synthetic balls, and their frame."""
    folder = tmp_path_factory.mktemp("sets")
    real, synthetic = _set(folder / "real", 8, 0), _set(folder / "dim", 6, 1, 0.8)
    return real, synthetic, frame(real)


def _of(network: dist.Network, protocol: Protocol) -> dict[str, Metric]:
    """The metrics of a network's features, by name."""
    found = [dist.of_network(metric, network) for metric in dist.METRICS if metric.protocol == protocol]
    return {metric.name: metric for metric in found}


def _image(name: str, protocol: Protocol) -> Metric:
    return next(metric for metric in images.METRICS if (metric.name, metric.protocol) == (name, protocol))


def test_the_frame_is_the_real_brains_box(sets: tuple[Store, Store, Frame]) -> None:
    places = torch.nonzero(sets[2].mask[0])
    largest = max(int((torch.nonzero(image[0])[:, 0]).max()) for image in sets[0].images())
    assert int(places[:, 0].max()) == largest


def test_the_random_feature_distance_is_gauss_against_gauss(sets: tuple[Store, Store, Frame]) -> None:
    real, synthetic, view = sets
    network = RandomFeatures()
    both = [dist.features(store, network, "standard", view, "cpu") for store in (real, synthetic)]
    with torch.no_grad():
        direct = torch.cat([network(image[None]) for image in real.images()]).double()
    assert torch.allclose(both[0], direct, rtol=1e-5, atol=1e-7)
    found = _of(network, "standard")
    few = [1e3 * features[:, 16:21] for features in both]
    x, y = (features.numpy() for features in few)
    product = sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * product)
    assert found["fid_random"].statistic(*few) == pytest.approx(expected, rel=1e-6)
    assert found["fid_random"].title == "Random-feature distance"
    assert "untrained" in network.label
    assert set(found) == {
        "fid_random",
        "mmd_random",
        "density_random",
        "coverage_random",
        "told_apart_random",
        "auc_random",
    }
    assert found["coverage_random"].statistic(*both) < 0.3  # they are all dimmer


def test_accuracy_and_area_of_the_same_brains_share_their_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def decided(real: torch.Tensor, synthetic: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        trained.append(len(real))
        return decisions(real, synthetic)

    monkeypatch.setattr(dist, "decisions", decided)
    generator = torch.Generator().manual_seed(3)
    real, synthetic = (torch.randn(n, 4, generator=generator).double() + shift for n, shift in ((14, 0.0), (11, 0.8)))
    metrics = {metric.name: metric for metric in dist.METRICS if metric.protocol == "standard"}
    accuracy, area = (metrics[name].measure(real, synthetic, resamples=20)["value"] for name in ("told_apart", "auc"))
    again = (told_apart(real, synthetic), told_apart_auc(real, synthetic))
    assert isinstance(accuracy, Interval) and isinstance(area, Interval)
    assert (accuracy.value, area.value) == pytest.approx(again) and 0.5 < min(again) <= max(again) < 1
    count = len(trained)
    assert count == 1 + 20 + 2 * 20  # the sets, resamples, halvings of the real rows and draws of both
    assert metrics["auc"].statistic(real.flip(0), synthetic) == pytest.approx(told_apart_auc(real.flip(0), synthetic))
    assert len(trained) == count + 1  # rows in another order are other rows


@pytest.mark.parametrize("metric", [m for m in dist.METRICS if m.protocol == "standard"], ids=lambda m: m.name)
def test_rows_do_not_depend_on_threads(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    real, synthetic = (torch.randn(n, 480, generator=generator) + shift for n, shift in ((60, 0.0), (50, 0.2)))
    threads, rows = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            monkeypatch.setattr(dist, "_decisions", {})
            torch.set_num_threads(count)
            rows.append(metric.measure(real, synthetic, resamples=30))
    finally:
        torch.set_num_threads(threads)
    assert rows[0] == rows[1] and rows[0]["floor"] is not None


def test_scores_of_pairs_are_measured_once(sets: tuple[Store, Store, Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> None:
        raise UserError("measured again")

    def scores(seed: int) -> list[torch.Tensor]:
        real, synthetic, view = sets
        within = images.diversity(synthetic, view, 4, seed), images.published_real_scores(real, view, 4, seed)
        return [images.published_scores(real, synthetic, view, 2, seed), *within]

    first = scores(5)
    monkeypatch.setattr(images, "_score", again)
    for before, after in zip(first, scores(5), strict=True):
        torch.testing.assert_close(before, after, equal_nan=True)
    with pytest.raises(UserError, match="measured again"):  # other pairs
        scores(6)


def test_trained_features_are_called_fid_and_carry_their_hash(sets: tuple[Store, Store, Frame]) -> None:
    network = MedicalNet(name="resnet_50_23dataset", sha256="0123", verified=True)
    names = _of(network, "paper")
    assert set(names) == {"fid_resnet50_23", "mmd_resnet50_23"}
    assert names["fid_resnet50_23"].title == "FID (resnet50_23)"
    assert "0123" in network.label


def test_published_features_hold_the_first_half_of_the_real_brains_twice() -> None:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, generator=random), torch.randn(8, 3, generator=random)
    other = torch.cat([x[:4], 100 + x[4:]])  # the second half doesn't count
    for metric in (metric for metric in dist.METRICS if metric.name in ("fid", "mmd")):
        assert (metric.statistic(x, y) == metric.statistic(other, y)) == (metric.protocol == "paper")


def test_image_mmd_from_the_volumes_themselves(sets: tuple[Store, Store, Frame]) -> None:
    real, synthetic, _ = sets
    x, y = (torch.stack(list(store.images())).flatten(1).double().numpy() for store in (real, synthetic))
    kernel = lambda a, b: (a @ b.T / x.shape[1] + 1) ** 3  # noqa: E731
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    expected = (xx.sum() - np.trace(xx)) / 56 + (yy.sum() - np.trace(yy)) / 30 - 2 * xy.mean()
    metric = _image("image_mmd", "standard")
    every = metric.rows(images.Sides(*sets))
    assert metric.statistic(*every) == pytest.approx(expected, rel=1e-5)
    rows = torch.tensor([0, 2, 2, 5])
    xx = kernel(x[rows], x[rows])
    yy, xy = kernel(y[:4], y[:4]), kernel(x[rows], y[:4])
    expected = (xx.sum() - np.trace(xx)) / 12 + (yy.sum() - np.trace(yy)) / 12 - 2 * xy.mean()
    assert metric.statistic(every[0][rows], every[1][:4]) == pytest.approx(expected, rel=1e-5)


def test_linear_mmd_in_pairs_rewards_mode_collapse() -> None:
    """The published MMD prefers copies of one mean image to as many real brains; the standard one doesn't."""
    real, others, more = (
        torch.rand(600, 1, 2, 2, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(3)
    )
    collapsed = more.mean(dim=0, keepdim=True).expand(600, -1, -1, -1, -1)

    def values(protocol: Protocol, size: float) -> list[float]:
        rows = [images.image_products(list(real), list(made), size) for made in (others, collapsed)]
        return [_image("image_mmd", protocol).statistic(*pair) for pair in rows]

    paper, standard = values("paper", 1.0), values("standard", 8.0)
    assert paper[1] < 0.7 * paper[0]
    assert standard[1] > 3 * abs(standard[0])


def test_diversity_is_the_mean_over_pairs_of_one_set(sets: tuple[Store, Store, Frame]) -> None:
    real, synthetic, view = sets
    volumes = list(synthetic.images())
    scores = [ms_ssim(volumes[i], volumes[j], view.mask) for i in range(6) for j in range(i)]
    metric = _image("ms_ssim", "standard")
    every = metric.rows(images.Sides(real, synthetic, view, pairs=1000))
    assert metric.statistic(*every) == pytest.approx(np.mean(scores), rel=1e-6)
    assert metric.statistic(every[0], every[1][:2]) == pytest.approx(scores[0])
    row = metric.measure(*every, resamples=5)
    assert row["better"] == row["floor"].value == pytest.approx(float(images.diversity(real, view, 1000).nanmean()))
    few = images.diversity(real, view, 5, seed=3)
    assert int((~few.isnan()).sum()) == 10
    assert torch.equal(few, few.T) or torch.allclose(few, few.T, equal_nan=True)


def test_density_and_coverage_count_five_neighbours() -> None:
    x, y = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).double() for n in (12, 9))
    metrics = _of(RandomFeatures(), "standard")
    found = {name: metric.statistic(x, y) for name, metric in metrics.items()}
    radius = np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), axis=1)[:, 5]  # the first is itself
    inside = np.linalg.norm(x[:, None] - y[None], axis=-1) <= radius[:, None]
    assert found["density_random"] == pytest.approx(inside.sum(axis=0).mean() / 5)
    assert found["coverage_random"] == pytest.approx(inside.any(axis=1).mean())
    assert {name for name, metric in metrics.items() if metric.fits(x[:5], y)} == {"fid_random", "mmd_random"}


def test_published_ms_ssim_is_against_real_brains(sets: tuple[Store, Store, Frame]) -> None:
    real, synthetic, view = sets
    across = images.published_scores(real, synthetic, view, 1)
    assert (~across.isnan()).sum(dim=0).tolist() == [1] * 6
    i, j = torch.nonzero(~across.isnan())[0].tolist()
    direct = published_ms_ssim(*(paper_input(s.image(k), view.mask) for s, k in ((real, i), (synthetic, j))))
    assert float(across[i, j]) == pytest.approx(direct, abs=1e-3)
    metric = _image("ms_ssim", "paper")
    every = metric.rows(images.Sides(real, synthetic, view, pairs=2))
    assert metric.statistic(*every) == pytest.approx(float(across.nanmean()), abs=1e-6)
    assert metric.statistic(every[0], every[1][[j]]) == pytest.approx(direct, abs=1e-3)


def test_extractors_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no resnet_"):
        dist.load_extractors([tmp_path])
    with pytest.raises(UserError, match="no such file"):
        dist.load_extractors([tmp_path / "resnet_50.pth"])
    (tmp_path / "resnet_50.pth").write_bytes(b"other")
    with pytest.raises(UserError, match="wrong weights: sha256"):
        dist.load_extractors([tmp_path])
    assert [network.name for network in dist.load_extractors([])] == ["random-conv-v1-seed0"]


def test_other_processes_find_the_same_numbers(sets: tuple[Store, Store, Frame], tmp_path: Path) -> None:
    network = RandomFeatures(seed=1)

    def found(folder: Path, runner: Runner) -> list[torch.Tensor]:
        store = Store("few", copy(sets[0].brains), folder, runner)
        store.brains.scans = store.brains.scans[:2]
        store.fill()
        numbers = [dist.features(store, network, protocol, sets[2], "cpu") for protocol in ("standard", "paper")]
        numbers += [images.diversity(store, sets[2], 1), images.published_real_scores(store, sets[2], 1)]
        return [*numbers, coarse_images(store, sets[2])]

    with Runner(isolated=True) as runner:
        far = found(tmp_path / "far", runner)
    for here, there in zip(found(tmp_path / "here", HERE), far, strict=True):
        assert torch.equal(here.nan_to_num(-1), there.nan_to_num(-1))


def test_a_trained_network_is_sent_as_the_name_of_its_file(tmp_path: Path) -> None:
    torch.save({"state_dict": MedicalNet(name="other").state_dict()}, tmp_path / "other.pth")
    network = dist.load_extractors([tmp_path / "other.pth"], random_features=False)[0]
    sent = pickle.dumps(network)
    again = pickle.loads(sent)
    assert len(sent) < 1000 and again.label == network.label
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_a_set_none_of_whose_brains_has_features_is_one_line(sets: tuple[Store, Store, Frame], tmp_path: Path) -> None:
    (tmp_path / "spots").mkdir()
    real, _, view = sets
    for k in range(2):
        image = np.zeros((SIDE, SIDE, SIDE), np.float32)
        image[SIDE // 2, SIDE // 2, SIDE // 2] = 1
        nib.save(nib.Nifti1Image(image, real.brains.grid.affine[:, [2, 1, 0, 3]]), tmp_path / "spots" / f"{k}.nii.gz")
    store = Store("spots", BrainSet(tmp_path / "spots", rescale=False), tmp_path / "work")
    store.fill()
    with pytest.raises(UserError, match="95 % of the paper's"):
        dist.features(store, RandomFeatures(), "paper", view, "cpu")
