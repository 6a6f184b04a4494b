"""Notebooks run from top to bottom, small, and what is committed is what their cells gave at full size."""

import ast
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pandas as pd
import pytest
from jupyter_client import KernelManager

from cortexgen.data.cohort import read_cohort
from cortexgen.io import read_volume

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"\]\((?!\w+:)([^)#]+)")
ELSEWHERE = re.compile(r"(?<![\w.])/(home|Users|root|tmp|var|opt|usr|mnt|work)/")
Ran = Callable[..., tuple[str, Path]]

specification = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
assert specification and specification.loader
notebooks: Any = importlib.util.module_from_spec(specification)
specification.loader.exec_module(notebooks)


def committed(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def pictures(notebook: Any) -> list[int]:
    """How many each cell of code gave."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [sum(notebooks.PNG in output.get("data", {}) for output in cell.outputs) for cell in cells]


def text(notebook: Any) -> str:
    """What cells printed, and tables."""
    found = [output for _, output in notebooks.outputs(notebook)]
    return "\n".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in found)


def with_parameters(notebook: Any, values: dict[str, Any]) -> None:
    """Let the cell at the top say other values of names that it has."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    names = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
    assert values.keys() <= names
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One for all, which imports PyTorch once."""
    manager = KernelManager(kernel_name="python3")
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def ran(kernel: KernelManager, tmp_path: Path) -> Ran:
    """Runs a notebook with smaller numbers; returns its text and its folder."""

    def run(name: str, **smaller: Any) -> tuple[str, Path]:
        notebook = committed(name)
        expected = pictures(notebook)
        with_parameters(notebook, smaller)
        begin = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {tmp_path}")
        notebook.cells.insert(0, begin)
        notebooks.execute(notebook, tmp_path, kernel)
        assert pictures(notebook)[1:] == expected
        return text(notebook), tmp_path

    return run


def test_quickstart(ran: Ran) -> None:
    said, folder = ran("quickstart", AGE=30, SEX="M", APPEARANCE="template", REFINE=0)
    assert said.count("folded voxels: 0") == 2
    assert re.search(r"^age +30", said, re.MULTILINE) and re.search(r"^sex +M", said, re.MULTILINE)
    assert 0.6 < float(re.search(r"mean Dice: ([\d.]+)", said)[1]) < 0.95  # type: ignore[index]
    assert (folder / "cohort" / "participants.tsv").is_file()


def test_generate(ran: Ran) -> None:
    said, folder = ran("generate", BRAINS=1, EACH=1, APPEARANCE="template")
    (scan,) = read_cohort(folder / "brains")
    image, labels = read_volume(scan.image)[0], read_volume(scan.labels, labels=True)[0]  # type: ignore[arg-type]
    assert 0.5 < image.max() <= 1 and {1, 17} < set(labels.unique().tolist())
    assert (folder / "brains" / "generated.html").is_file()
    change = re.search(r"^Lateral-Ventricle.* (-?[\d.]+)$", said, re.MULTILINE)
    assert change and float(change[1]) > 10


def test_evaluate(ran: Ran) -> None:
    said, folder = ran("evaluate", PEOPLE=3, BRAINS=3, PAIRS=2, RESAMPLES=5)
    assert (folder / "report" / "evaluation.html").is_file()
    regions = pd.read_csv(folder / "report" / "tables" / "regions.csv")
    assert set(regions["set"]) == {"same", "weights"} and (regions["mean"] > 0).all()
    for title in pd.read_csv(folder / "report" / "tables" / "comparison.csv")["title"]:
        assert title[:30] in said


def test_train(ran: Ran) -> None:
    said, folder = ran("train", SUBJECTS=5, STEPS=(2, 2, 2), REFINE=1, BRAINS=1)
    assert said.count("folded voxels: 0") == 2
    before, after = map(float, re.search(r"Dice ([\d.]+) before, ([\d.]+) after", said).groups())  # type: ignore[union-attr]
    assert 0.3 < before <= after + 0.02 < 1
    for stage in ("register", "generate", "appearance"):
        log = pd.read_csv(folder / "runs" / stage / "log" / "metrics.csv")
        assert len(log) == 2 and log["train/loss"].between(-20, 20).all()
        assert (folder / "runs" / f"{stage}.ckpt").is_file()


def test_segmentation(ran: Ran) -> None:
    said, folder = ran("segmentation", BRAINS=2, PEOPLE=4, HELD_OUT=2, STEPS=2)
    assert "['sub-0003', 'sub-0004']" in said
    found = [[float(number) for number in row] for row in re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", said)]
    assert len(found) == 3 and all(0 <= low <= value <= high < 0.5 for value, low, high in found)
    assert len(list((folder / "work" / "segmenters").glob("*.safetensors"))) == 2


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_what_its_cells_gave(name: str) -> None:
    path, notebook = ROOT / "notebooks" / f"{name}.ipynb", committed(name)
    assert path.stat().st_size < 400_000
    assert notebook.metadata["executed"] == notebooks.source_hash(notebook)
    assert notebook.metadata == notebooks.METADATA | {"executed": notebook.metadata["executed"]}
    assert sum(pictures(notebook)) >= 2
    given = [output for _, output in notebooks.outputs(notebook)]
    assert {output["output_type"] for output in given} <= {"display_data", "execute_result", "stream"}
    assert not [output for output in given if output.get("name") == "stderr"]
    without = [{key: value for key, value in o.get("data", {}).items() if key != notebooks.PNG} for o in given]
    assert not ELSEWHERE.search(json.dumps([without, text(notebook)]))


@pytest.mark.parametrize("name", NAMES)
def test_site_shows_it(name: str) -> None:
    notebook, stub = committed(name), ROOT / "docs" / "notebooks" / f"{name}.md"
    page = SimpleNamespace(file=SimpleNamespace(src_uri=f"notebooks/{name}.md"))
    shown = notebooks.on_page_markdown(stub.read_text(encoding="utf-8"), page)
    for cell in notebook.cells:
        words = LINK.sub("", cell.source).splitlines()[-1]
        assert LINK.sub("", words) in LINK.sub("", shown)
    assert shown.count("data:image/png;base64,") == sum(pictures(notebook))
    assert not [link for link in LINK.findall(shown) if not (stub.parent / link).is_file()]
    written = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not [link for link in LINK.findall(written) if not (ROOT / "notebooks" / link).is_file()]


def test_a_warning_is_an_error(kernel: KernelManager, tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("import warnings\nwarnings.warn('something is off')")
    with pytest.raises(RuntimeError, match="something is off"):
        notebooks.execute(nbformat.v4.new_notebook(cells=[cell]), tmp_path, kernel)
