"""Executes the notebooks, and shows them on the site.

    pip install -e ".[test]" && python docs/notebooks.py        # all of them; quickstart train, some of them

Each runs in a kernel and an empty folder of its own and is written back with what came out: its text, tables and
pictures. Anything that it warns of is an error. What it was executed from is kept in its metadata, as a hash.

MkDocs takes this file as a hook: a page that is a link to a notebook shows it, without executing it.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
LINK = re.compile(r"\[[^\]]+\]\(\.\./\.\./notebooks/(\w+\.ipynb)\)")
TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
GREYS, COLOURS, DOTS = 32, 96, 800  # of a picture: its palette, and its width at most
VIVID = 16  # difference of its channels from which on a dot is no grey
TIMEOUT = 1800  # seconds of a cell
PNG = "image/png"
QUIET = {"CORTEXGEN_VERBOSITY": "quiet", "POSSIBLE_USER_WARNINGS": "off"}  # no progress, none of Lightning's guesses


def source_hash(notebook: Any) -> str:
    """A hash of what its cells of code say."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def execute(notebook: Any, folder: Path, kernel: Any = None) -> None:
    """Run it in a folder, in a kernel that runs, or in one of its own.

    Raises:
        RuntimeError: if anything is written to standard error, a warning for instance.
    """
    from nbclient import NotebookClient

    env = os.environ | QUIET
    client = NotebookClient(notebook, km=kernel, timeout=TIMEOUT, record_timing=False, kernel_name="python3")
    client.resources = {"metadata": {"path": str(folder)}}
    client.execute(env=env)
    said = [o["text"] for _, o in outputs(notebook) if o.get("name") == "stderr"]
    if said:
        raise RuntimeError(said[0])


def outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    """Its cells of code with each thing that came out of them."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            yield cell, output


def normalize(notebook: Any) -> None:
    """Keep what a reader sees and what doesn't depend on where it ran, in small pictures."""
    notebook["metadata"] = METADATA | {"executed": source_hash(notebook)}
    for cell, output in outputs(notebook):
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        data = output.get("data", {})
        if PNG in data:
            output["data"], output["metadata"] = {PNG: small(data[PNG])}, {}


def small(png: str) -> str:
    """A picture of few colours and dots, base64 both."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if image.width > DOTS:
        image = image.resize((DOTS, round(image.height * DOTS / image.width)), Image.Resampling.LANCZOS)
    dots = np.asarray(image)
    colours = np.unique(dots[np.ptp(dots, axis=2) > VIVID] // 8 * 8, axis=0)  # rare ones, of a legend, count as others
    chosen = [channel for level in np.linspace(0, 255, GREYS).round() for channel in [int(level)] * 3]
    if len(colours):
        chosen += Image.fromarray(colours[None]).quantize(COLOURS).getpalette() or []
    palette, content = Image.new("P", (1, 1)), io.BytesIO()
    palette.putpalette(chosen[: 3 * (GREYS + COLOURS)])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(content, format="png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs: a page that is a link to a notebook becomes that notebook."""
    found = LINK.fullmatch(markdown.strip().splitlines()[-1]) if page.file.src_uri.startswith("notebooks/") else None
    return shown(json.loads((FOLDER / found[1]).read_text(encoding="utf-8"))) if found else markdown


def shown(notebook: Any) -> str:
    """A notebook as Markdown, its pictures inside."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../docs/", "](../").replace(".ipynb)", ".md)"))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if PNG in data:
                parts.append(f"![What the cell above shows](data:image/png;base64,{''.join(data[PNG]).strip()})")
            elif "text/html" in data:  # tables; a link to a file leads nowhere here
                parts += [re.sub("<table[^>]*>", "<table>", t) for t in TABLE.findall("".join(data["text/html"]))]
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Execute notebooks and write them back."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.ipynb")))
    for name in parser.parse_args().names:
        path = FOLDER / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        normalize(notebook)
        nbformat.write(notebook, path)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
