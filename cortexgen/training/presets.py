"""Configurations that come with the package, and how a command line names them."""

from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser

from cortexgen.errors import UserError

PRESETS = (
    "preprocess.yaml, register.yaml, generate.yaml, appearance.yaml, features.yaml, paper/preprocess.yaml, "
    "paper/register.yaml, paper/generate.yaml, demo/register.yaml, demo/generate.yaml, demo/appearance.yaml, "
    "small/appearance.yaml, and in baselines/: vaegan.yaml, alphawgan.yaml, hagan.yaml, latentdiffusion.yaml, "
    "medsyn.yaml, cdpm.yaml, voxelmorph.yaml, diffusemorph.yaml, pirate.yaml, pirateplus.yaml"
)


def _folders() -> list[Path]:
    """Where bundled presets are: in the package, or beside it in the source tree."""
    package = Path(str(files("cortexgen")))
    return [package / "configs", package.parent / "configs"]


def bundled() -> list[str]:
    """Names of the presets that come with the package."""
    folder = next((folder for folder in _folders() if folder.is_dir()), None)
    found = [path.relative_to(folder) for path in folder.rglob("*.yaml")] if folder else []
    return [path.as_posix() for path in sorted(found, key=lambda path: (len(path.parts), path))]


def find_preset(name: str) -> str:
    """A `--config` value: the file if it exists, else the bundled preset of that name.

    Raises:
        UserError: if there is neither.
    """
    for path in (Path(name), *(folder / name for folder in _folders())):
        if path.is_file():
            return str(path)
    raise UserError(f"--config {name}: no such file, and no bundled preset; there are {PRESETS}")


class _Config(ActionConfigFile):
    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, find_preset(values), option_string)


class PresetParser(ArgumentParser):
    """Finds presets, and says what is wrong in one line."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("action") is ActionConfigFile:
            kwargs["action"] = _Config
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(message.split())) from None
