"""A network that tells two sets apart where they differ, can't where they don't, and repeats itself."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cortexgen.metrics import discriminator
from cortexgen.metrics.classifier import area_under_curve, balanced_accuracy
from cortexgen.metrics.discriminator import held_out_scores, scores, small_cnn, train_classifier

Side = list[Callable[[], Tensor]]


def brain(seed: int, ripple: float) -> Tensor:
    """A noisy ball, whose surface is rippled or not: nothing that its mean would tell."""
    axes = torch.linspace(-1, 1, 20)
    d, h, w = torch.meshgrid(axes, axes, axes, indexing="ij")
    generator = torch.Generator().manual_seed(seed)
    radius = 0.7 + 0.1 * float(torch.rand((), generator=generator))
    inside = (d**2 + h**2 + w**2).sqrt() < radius
    noise = 0.05 * torch.randn(inside.shape, generator=generator)
    return (inside * (0.5 + ripple * torch.sin(16 * h) + noise))[None]


def side(n: int, first: int, ripple: float = 0.0) -> Side:
    return [partial(brain, first + k, ripple) for k in range(n)]


def test_a_difference_is_learned_and_found_in_brains_that_were_not_seen() -> None:
    found = held_out_scores((side(12, 0), side(10, 100, ripple=0.15)), steps=80, folds=2)
    assert [len(each) for each in found] == [12, 10]
    assert area_under_curve(*found) > 0.95 and balanced_accuracy(*found) > 0.8  # above 0 for the first


def test_sets_of_one_kind_are_not_told_apart() -> None:
    found = held_out_scores((side(20, 0), side(20, 100)), steps=80, folds=2)
    assert 0.25 < area_under_curve(*found) < 0.75


def test_a_seed_is_a_training_and_leaves_other_draws_alone() -> None:
    sides = side(3, 0), side(3, 100, 0.1)
    state = torch.get_rng_state()
    first, again, other = (scores(train_classifier(sides, 2, seed), side(2, 50)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_brain_and_its_mirror_image_have_one_score() -> None:
    torch.manual_seed(0)
    net = small_cnn().eval()
    image = torch.rand(1, 16, 18, 20)
    both = scores(net, [lambda: image, lambda: image.flip(-1)], precision="32")
    torch.testing.assert_close(both[0], both[1])


def test_nobody_is_asked_about_whom_it_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = tuple([partial(torch.full, (1,), float(k)) for k in range(start, start + 11)] for start in (0, 100))
    learned: list[set[float]] = []

    def train(given: tuple[discriminator.Readers, discriminator.Readers], *_: object) -> nn.Module:
        learned.append({float(read()) for side in given for read in side})
        return nn.Identity()

    def asked(_: nn.Module, side: discriminator.Readers, *__: object) -> torch.Tensor:
        values = [float(read()) for read in side]
        assert not learned[-1] & set(values)
        return torch.tensor(values, dtype=torch.float64)

    monkeypatch.setattr(discriminator, "train_classifier", train)
    monkeypatch.setattr(discriminator, "scores", asked)
    a, b = discriminator.held_out_scores((sides[0], sides[1]), 1, 5)
    assert a.tolist() == [*range(11)] and b.tolist() == [*range(100, 111)]  # everybody is asked about once
    assert len(learned) == 5 and all(len(each) >= 16 for each in learned)
