"""Curves of several sets, some of which have no labels."""

import numpy as np
import pytest

from cortexgen.figures.texture import Curve, texture_curves


def test_a_set_looks_alike_in_all_panels() -> None:
    at = np.arange(3.0)
    sets = [{name: at * k for k, name in enumerate(names)} for names in ("abcdefg", "cg")]
    figure = texture_curves([Curve("t", "u", at, at, at, at, each) for each in sets])
    looks = [{ln.get_label(): (ln.get_color(), ln.get_linestyle()) for ln in ax.get_lines()} for ax in figure.axes]
    assert len(set(looks[0].values())) == 8 and looks[1] == {k: looks[0][k] for k in ("real brains", "c", "g")}
    with pytest.raises(ValueError, match="got none"):
        texture_curves([])
