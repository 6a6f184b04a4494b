"""Every bundled configuration is found, builds its module, and is named where one isn't."""

from pathlib import Path

import pytest
import yaml

import cortexgen.modules as stages
from cortexgen.errors import UserError
from cortexgen.modules import baselines
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


@pytest.mark.parametrize("name", [str(p.relative_to(CONFIGS)) for p in sorted(CONFIGS.rglob("*.yaml"))])
def test_each_has_a_module_that_can_be_built(name: str) -> None:
    model = yaml.safe_load((CONFIGS / name).read_text()).get("model")
    if model is None:  # of preprocessing
        return
    given = model["init_args"]
    if "class_path" not in model:  # laid over another
        under = CONFIGS / Path(name).name
        model = yaml.safe_load((under if under.is_file() else CONFIGS / "register.yaml").read_text())["model"]
        given = model["init_args"] | given
    kind = getattr(stages, model["class_path"], None) or getattr(baselines, model["class_path"])
    module = kind(**given)
    assert all(module.hparams[key] == value for key, value in given.items() if key in module.hparams)
