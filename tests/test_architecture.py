"""The house's rules: which room imports which, and what a file may hold. `pyproject.toml` has the rule of imports."""

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from statistics import median, quantiles

import grimp
import pytest
from lightning import LightningModule

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "cortexgen").rglob("*.py"))
NAMES = "html|head|body|div|span|table|tr|t[dh]|p|h[1-6]|img|ul|ol|li|a|b|i|code|pre|script|style|section|figure|svg"
TAG = re.compile(rf"<({NAMES})(\s+[\w-]+=|\s*/?>)|</({NAMES})>")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's source and its rule, for a test to break."""
    shutil.copytree(ROOT / "cortexgen", tmp_path / "cortexgen", ignore=lambda _, names: _others(names))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _others(names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")]


def lint(folder: Path) -> tuple[int, str]:
    """Exit status and words of import-linter."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_rule_of_imports_is_kept(copy: Path) -> None:
    status, words = lint(copy)
    assert status == 0, words


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("spatial/warp.py", "import cortexgen.commands.generate", "spatial.warp -> cortexgen.commands.generate"),
        ("io/grid.py", "def f():\n    from cortexgen.pages import report", "cortexgen.io.grid -> cortexgen.pages"),
        ("io/paths.py", "from cortexgen.io.output import claim", "No cycles are allowed in cortexgen.io"),
        ("nets/blocks.py", "from cortexgen.diffusion.a import b", "No cycles are allowed in cortexgen."),
        ("losses/ncc.py", "import nibabel", "cortexgen.losses.ncc -> nibabel"),
        ("kitchen.py", "", "kitchen"),
    ],
    ids=["upwards", "upwards in a function", "circle of files", "circle of rooms", "not plain", "room without a place"],
)
def test_the_rule_fails_when_it_is_broken(copy: Path, file: str, line: str, said: str) -> None:
    (copy / "cortexgen" / "diffusion" / "a.py").write_text("from cortexgen.nets import blocks as b\n")
    with open(copy / "cortexgen" / file, "a") as source:
        source.write(f"\n{line}\n")
    status, words = lint(copy)
    assert status == 1 and said in words


def imports() -> grimp.ImportGraph:
    return grimp.build_graph("cortexgen", cache_dir=None)


def circle(graph: grimp.ImportGraph) -> list[str]:
    """Files that import each other, one another's packages among them, in their order."""
    try:
        graphlib.TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_circle_of_files() -> None:
    assert circle(imports()) == []


def test_a_package_that_its_file_imports_is_a_circle() -> None:
    graph = imports()
    graph.add_import(importer="cortexgen.spatial.warp", imported="cortexgen.spatial")
    assert {"cortexgen.spatial", "cortexgen.spatial.warp"} <= {*circle(graph)}


def test_modules_hold_lightning_modules_alone() -> None:
    for path in (ROOT / "cortexgen" / "modules").rglob("*.py"):
        module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        assert all(issubclass(c, LightningModule) for c in classes), path
        assert classes or path.name == "__init__.py", path


def test_pages_are_written_in_templates() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not TAG.search(node.value), f"{path}:{node.lineno}"
    assert TAG.search('<td class="n">') and TAG.search("</p>") and not TAG.search("a < b > c, <class 'int'>, <subject>")


def test_files_are_short() -> None:
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert median(lines) <= 120 and quantiles(lines, n=10)[-1] <= 250 and lines[-1] <= 330
