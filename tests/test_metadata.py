"""What the package says of itself in several files, which must say the same."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "isal": "python-isal"}  # names that differ there
EXTRAS = {"jsonargparse": {"docstring-parser", "typeshed-client"}, "tabulate": {"wcwidth"}}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def recipe() -> dict:
    return yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))


def bounds(lines: list[str]) -> dict[str, SpecifierSet]:
    """Of a recipe's requirements by name."""
    cells = [line.split(maxsplit=1) for line in lines]
    return {plain(cell[0]): SpecifierSet(cell[1] if len(cell) > 1 else "") for cell in cells}


def test_the_conda_recipe_has_the_same_dependencies() -> None:
    ours = [Requirement(line) for line in PROJECT["dependencies"]]
    expected = {plain(CONDA.get(one.name, one.name)): one.specifier for one in ours}
    extras = {name for one in ours if one.extras for name in EXTRAS[one.name]}
    expected |= dict.fromkeys(extras, SpecifierSet()) | {"python": SpecifierSet(PROJECT["requires-python"])}
    found = recipe()["requirements"]
    assert bounds(found["run"]) == expected
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    needed = {plain(one.name): one.specifier for one in map(Requirement, build)}
    assert bounds(found["host"]) == needed | {"pip": SpecifierSet(), "python": expected["python"]}


def test_version_licence_title_and_entry_point_are_the_same() -> None:
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    conda = recipe()
    assert {conda["context"]["version"], zenodo["version"], citation["version"]} == {PROJECT["version"]}
    licences = conda["about"]["license"], conda["about"]["license_file"]
    assert licences == (PROJECT["license"], PROJECT["license-files"])
    assert zenodo["license"] == citation["license"] == PROJECT["license"].split()[0]
    assert zenodo["title"] == citation["title"] and zenodo["keywords"] == PROJECT["keywords"]
    assert conda["build"]["python"]["entry_points"] == [" = ".join(one) for one in PROJECT["scripts"].items()]


def test_zenodo_takes_its_file() -> None:
    """The fields that its documentation of deposits requires of software."""
    found = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert {"title", "upload_type", "description", "creators", "access_right", "license"} <= found.keys()
    assert found["upload_type"] == "software" and found["access_right"] == "open"
    assert all(creator["name"] for creator in found["creators"])


def test_the_citation_fits_its_schema() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    schema = ["--builtin-schema", "vendor.citation-file-format", "--default-filetype", "yaml"]
    check = [sys.executable, "-m", "check_jsonschema", *schema, str(ROOT / "CITATION.cff")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
