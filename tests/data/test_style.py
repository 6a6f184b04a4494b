"""Styles of images whose contrast, noise and bias are known, and what is drawn of a cohort's."""

import pytest
import torch

from cortexgen.data.style import STYLE, drawn_style, measure_style, restyled
from cortexgen.errors import UserError

CLASSES = ("Unknown", "Cerebral-White-Matter", "Cerebral-Cortex")
SIZE = 44


def brain():
    axis = torch.arange(SIZE, dtype=torch.float32) - SIZE / 2 + 0.5
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).square().sum(0).sqrt()
    labels = torch.zeros(SIZE, SIZE, SIZE, dtype=torch.int64)
    labels[radius < 18] = 2
    labels[radius < 14] = 1
    return labels[None], (radius < 20)[None]


def pictured(white=0.8, contrast=0.3, fluid=0.2, noise=0.0, slope=0.0):
    labels, inside = brain()
    image = torch.tensor([fluid * white, white, white * (1 - contrast)])[labels]
    image = image + noise * white * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return image * torch.linspace(1 - slope, 1 + slope, SIZE) * inside, labels


@pytest.mark.parametrize("asked", [{}, {"contrast": 0.15, "noise": 0.03}, {"white": 0.6, "fluid": 0.4, "noise": 0.01}])
def test_a_style_is_what_the_image_was_made_with(asked):
    image, labels = pictured(**asked)
    found = measure_style(image, labels, CLASSES, 2.0)
    wanted = {"white": 0.8, "contrast": 0.3, "fluid": 0.2, "noise": 0.0} | asked
    for name in ("white", "contrast"):
        assert found[name] == pytest.approx(wanted[name], rel=0.02)
    assert found["noise"] == pytest.approx(wanted["noise"], rel=0.05, abs=1e-4)
    assert found["fluid"] == pytest.approx(wanted["fluid"], abs=2 * wanted["noise"] + 1e-3)


def test_bias_is_a_slow_change_and_no_noise():
    flat, sloped, noisy = (
        measure_style(*pictured(**o), CLASSES, 2.0)["bias"] for o in ({}, {"slope": 0.2}, {"noise": 0.03})
    )
    assert flat < 1e-4
    assert noisy < 0.003
    # Of a linear slope in a ball of radius r: slope r / (half the width) / sqrt(5), less what the means blur.
    assert sloped == pytest.approx(0.2 * 13 / 22 / 5**0.5, rel=0.25)


def test_an_image_gets_the_levels_of_another_style():
    image, labels = pictured(white=0.9, contrast=0.2, noise=0.01)
    wanted = {"white": 0.8, "contrast": 0.4}
    found = measure_style(restyled(image, labels, CLASSES, 2.0, wanted), labels, CLASSES, 2.0)
    assert found["white"] == pytest.approx(0.8, abs=1e-3)
    assert found["contrast"] == pytest.approx(0.4, abs=1e-3)
    same = measure_style(image, labels, CLASSES, 2.0)
    torch.testing.assert_close(restyled(image, labels, CLASSES, 2.0, same), image)
    assert not restyled(image, labels, CLASSES, 2.0, wanted)[image == 0].any()
    nothing = torch.zeros_like(image)
    assert torch.equal(restyled(nothing, labels, CLASSES, 2.0, wanted), nothing)


def test_labels_without_white_matter_have_none():
    image, labels = pictured()
    with pytest.raises(UserError, match="needs labels with the classes"):
        measure_style(image, labels, ("Unknown", "a", "b"), 2.0)
    with pytest.raises(UserError, match="0 voxels of white matter away from its border"):
        measure_style(image, torch.zeros_like(labels), CLASSES, 2.0)


PEOPLE = [
    {"age": age, "cohort": cohort} | {name: 0.1 + 0.01 * k + (0.5 if cohort == "b" else 0) for name in STYLE}
    for k, (age, cohort) in enumerate((a, c) for c in "ab" for a in (20, 30, 40, 50, 60, 70))
]


def draws(wanted, count=200):
    return [drawn_style(PEOPLE, wanted, torch.Generator().manual_seed(k)) for k in range(count)]


def test_a_style_goes_with_its_cohort_and_age():
    assert {row["cohort"] for row in draws({"cohort": "b"})} == {"b"}
    assert all(row["noise"] > 0.5 for row in draws({"cohort": "b"}))
    old = draws({"age": 69, "cohort": "a"})
    assert {row["age"] for row in old} == {69}  # what is wanted stays
    assert torch.tensor([row["white"] for row in old]).mean() == pytest.approx(0.149, abs=0.01)
    assert {row["cohort"] for row in draws({})} == {"a", "b"}


def test_nobodys_style_is_repeated_and_what_is_wanted_stays():
    rows = draws({"cohort": "a", "noise": 0.123}, 50)
    assert {row["noise"] for row in rows} == {0.123}
    known = {row["white"] for row in PEOPLE}
    inner = [row["white"] for row in rows if 0.1 < row["white"] < 0.6]
    assert inner and not known & set(inner)


def test_a_draw_depends_on_its_generator_alone():
    assert draws({"age": 40}, 5) == draws({"age": 40}, 5)
