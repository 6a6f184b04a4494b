"""The notebook runs from top to bottom and shows its pictures."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient


def test_quickstart():
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2
    text = "".join(o.get("text", "") for o in outputs if o.get("name") == "stdout")
    assert text.count("folded voxels: 0") == 2
