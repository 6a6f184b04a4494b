"""Charts that tell their values."""

import re
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure

from cortexgen.figures.axes import MANY, box, panels
from cortexgen.figures.marks import mark, mark_curve
from cortexgen.figures.told import to_svg


def titles(svg: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(svg).iter("title")]


def test_points_tell_their_own_values_in_their_place() -> None:
    figure, (axes,) = panels(1, 1, 4, 2)
    box(axes, np.array([3.0, np.nan, 1.0, 2.0]), 0, "#3b6ea8", "Thalamus <b>")
    svg = to_svg(figure, "a-")
    places = {use.findtext("title"): float(use.get("x", "nan")) for use in ElementTree.fromstring(svg).iter("use")}
    assert places["Thalamus <b>: 1"] < places["Thalamus <b>: 2"] < places["Thalamus <b>: 3"]
    assert "Thalamus <b>: median 2, quartiles 1.5 to 2.5, n = 3" in titles(svg)


def test_many_points_are_a_picture_and_their_box_tells() -> None:
    figure, (axes,) = panels(1, 1, 4, 2)
    box(axes, np.arange(MANY + 1.0), 0, "#3b6ea8", "all")
    svg = to_svg(figure, "a-")
    assert titles(svg) == [f"all: median {MANY / 2:g}, quartiles 15 to 45, n = {MANY + 1}"] and "data:image/png" in svg


def test_curves_tell_finite_values() -> None:
    figure, (axes,) = panels(1, 1, 4, 2)
    mark_curve(axes, np.arange(3.0), np.array([5.0, np.nan, 7.0]), "set")
    mark_curve(axes, np.arange(3.0), np.full(3, np.nan), "none")
    assert titles(to_svg(figure, "a-")) == ["set: 5 at 0", "set: 7 at 2"]


def test_charts_of_a_page_have_names_of_their_own_and_its_colours() -> None:
    def chart() -> Figure:
        figure, (axes,) = panels(1, 1, 4, 2)
        mark(axes.scatter([1, 2], [1, 2]), "one", "two")
        return figure

    first, second = to_svg(chart(), "a-"), to_svg(chart(), "b-")
    names = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert names[0] and not names[0] & names[1]
    for svg, found in zip((first, second), names, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) == found
    assert first == to_svg(chart(), "a-") and "#222222" not in first and "var(--ink)" in first
    assert "//" not in first and "<style" not in first
