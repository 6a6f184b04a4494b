"""Every bundled configuration is found, and named where one isn't."""

from pathlib import Path

import pytest

from cortexgen.errors import UserError
from cortexgen.training.presets import find_preset

CONFIGS = Path(__file__).parents[2] / "configs"


def test_all_are_found_and_named() -> None:
    with pytest.raises(UserError, match="no bundled preset; there are") as error:
        find_preset("sing.yaml")
    alone, _, baselines = str(error.value).partition("baselines/:")
    for path in CONFIGS.rglob("*.yaml"):
        name = path.relative_to(CONFIGS)
        assert Path(find_preset(str(name))).samefile(path)
        shown = (baselines, name.name) if name.parent.name == "baselines" else (alone, str(name))
        assert shown[1] in shown[0].replace(",", " ").split(), name
