"""What tests share: a small simulated cohort, its registrations, and the program run in this process."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from cortexgen.atlas.template import Template
from cortexgen.cli import run
from cortexgen.figures import brains
from cortexgen.simulation import simulate_cohort
from cortexgen.weights import load_checkpoint, save_weights

CONF = Path(__file__).parent / "conf"
SUBJECTS = 5
GRAPHICS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]

brains.DPI = 40.0  # of the pictures that trainings draw
torch.set_num_threads(1)  # tests are many small operations, on which threads wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes they start, too
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))  # fonts need not be looked for again


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The caches of cohorts go with the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("caches"))


def chromium() -> str | None:
    """A browser of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if chromium() is None:
        terminalreporter.write_line("No page was opened in a browser: there is no chromium or google-chrome here.")


@pytest.fixture
def page_in() -> Callable[..., object]:
    """Opens a page in headless Chromium, `page_in(path, ...)` with options of its context."""
    if chromium() is None:
        pytest.skip("no chromium, chromium-browser or google-chrome here to open a page in")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = {}

        def open_page(path: Path, flags: tuple[str, ...] = (), **options: object) -> object:
            if flags not in made:
                made[flags] = playwright.chromium.launch(executable_path=chromium(), args=[*GRAPHICS, *flags])
            page = made[flags].new_page(**options)
            page.set_default_timeout(120_000)
            page.said, page.asked = [], []
            page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto(path.as_uri())
            return page

        yield open_page


@pytest.fixture
def look(page_in: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Looks at a page, wide and light, narrow and dark; screenshots go to CORTEXGEN_SCREENSHOTS, or pytest's folder."""
    folder = Path(os.environ.get("CORTEXGEN_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    axe = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")

    def check(path: Path) -> None:
        for scheme, width in (("light", 1400), ("dark", 360)):
            size = {"width": width, "height": 900}
            page = page_in(path, viewport=size, color_scheme=scheme)
            if page.query_selector(".viewer"):
                scrolls(page)
            height = page.evaluate("document.documentElement.scrollHeight")  # beyond 16384 it repeats
            page.screenshot(path=folder / f"{path.stem}-{scheme}-{width}.png", full_page=height < 16_000)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{width} is too narrow"
            found = page.evaluate(axe + ";axe.run(document, {resultTypes: ['violations']})")["violations"]
            grave = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
            assert not grave and page.said == []
            assert page.asked[0] == path.as_uri() and all(url.startswith(("data:", "blob:")) for url in page.asked[1:])
            page.close()

    return check


def scrolls(page: object) -> None:
    """The pictures of a viewer are there, and keys scroll both."""
    page.wait_for_selector(".viewer[data-ready]")
    assert not page.is_visible(".viewer .still")

    def pictures() -> list[np.ndarray]:
        from PIL import Image

        shots = [canvas.screenshot() for canvas in page.locator(".viewer canvas").all()]
        return [np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=float) for shot in shots]

    before, said = pictures(), page.locator(".where").all_inner_texts()
    assert all((picture > 60).mean() > 0.03 and len(np.unique(picture)) > 30 for picture in before)
    page.locator(".viewer canvas").first.focus()
    for _ in range(8):
        page.keyboard.press("ArrowUp")
    moved = page.locator(".where").all_inner_texts()
    assert len({words.split(" mm")[0] for words in moved}) == 1 and moved != said
    assert all(np.abs(a - b).mean() > 0.5 for a, b in zip(before, pictures(), strict=True))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five simulated subjects at 8 mm."""
    root = tmp_path_factory.mktemp("cohort") / "cohort"
    simulate_cohort(root, subjects=SUBJECTS, seed=4, spacing=8.0, progress=False)
    return root


@pytest.fixture(scope="session")
def verb() -> Callable[..., object]:
    """Runs `cortexgen VERB --config CONFIG --config tests/conf/STAGE.yaml ...` in this process."""

    def call(name: str, config: str, *args: object) -> object:
        stage = next(
            (name for name in ("generate", "appearance", "baselines", "features") if name in config), "register"
        )
        small = CONF / f"{stage}.yaml"
        return run([name, "--config", config, "--config", str(small), *map(str, args)])

    return call


@pytest.fixture(scope="session")
def registered(
    cohort: Path, verb: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A barely trained stage 1: its run folder, and what it predicted for the whole cohort."""
    run_folder, fields = tmp_path_factory.mktemp("stage1") / "run", tmp_path_factory.mktemp("stage1") / "fields"
    common = ("register.yaml", "--data.root", cohort, "--trainer.default_root_dir", run_folder)
    verb("fit", *common)
    verb("predict", *common, "--ckpt_path", "last", "--output", fields)
    return run_folder, fields


@pytest.fixture(scope="session")
def trained_generator(
    registered: tuple[Path, Path], verb: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run folder of a barely trained, conditional stage 2."""
    run_folder = tmp_path_factory.mktemp("stage2") / "run"
    where = ("--data.root", registered[1], "--trainer.default_root_dir", run_folder)
    verb("fit", "generate.yaml", *where, "--model.covariates", "[age, sex]")
    return run_folder


@pytest.fixture(scope="session")
def weights(trained_generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of that stage 2, whose samples pass their checks."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    module, _ = load_checkpoint(trained_generator / "checkpoints" / "last.ckpt")
    module.contract["log_volume_std"] *= 3  # of five simulated subjects, whose range says little
    save_weights(path, module)
    return path


@pytest.fixture(scope="session")
def trained_appearance(
    cohort: Path, registered: tuple[Path, Path], verb: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run folder of a barely trained stage 3."""
    run_folder = tmp_path_factory.mktemp("stage3") / "run"
    where = ("--data.root", cohort, "--data.registered", registered[1], "--trainer.default_root_dir", run_folder)
    verb("fit", "appearance.yaml", *where)
    return run_folder


@pytest.fixture(scope="session")
def degraded() -> Callable[..., torch.Tensor]:
    """Makes of a brain in template space one whose overlap and correlation with the template are as low as asked for:
    by a shell of tissue around it, and by voxels that are mixed with others."""
    from scipy.ndimage import distance_transform_edt

    from cortexgen.atlas.alignment import SPACING, _at, _fit

    def make(image: torch.Tensor, template: Template, overlap: float, correlation: float) -> torch.Tensor:
        grid, inside = template.grid, image > 0.05
        order = torch.randperm(int(inside.sum()), generator=torch.Generator().manual_seed(0))
        distance = torch.from_numpy(distance_transform_edt(~inside[0].numpy()))[None]
        near = distance[~inside].sort().values

        def mixed(share: float, around: int) -> torch.Tensor:
            out = torch.where(~inside & (distance <= near[around]), 0.3, image) if around else image.clone()
            out[inside] = ((1 - share) * image[inside] + share * image[inside][order]).clamp(min=0.06)
            return out

        def fits(candidate: torch.Tensor) -> tuple[float, float]:
            return _fit(*_at(candidate, grid, SPACING), template, np.eye(4))  # without the turns

        around, share = 0, 0.0
        for step in (2.0**-k for k in range(1, 11)):  # bisection
            more = around + int(step * 0.5 * len(near))
            if fits(mixed(0.0, more))[0] > overlap:
                around = more
        for step in (2.0**-k for k in range(1, 9)):
            if fits(mixed(share + step, around))[1] > correlation:
                share += step
        return mixed(share, around)

    return make


@pytest.fixture(scope="session")
def real_brains() -> Path:
    """The 56 real brains beside the project; the test is skipped where they are not."""
    root = Path(os.environ.get("CORTEXGEN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "ds002748-2mm"
    if not root.is_dir():
        pytest.skip("the real brains (ds002748-2mm) are not here; set CORTEXGEN_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def bids_errors() -> Callable[[Path], list[str]]:
    """Finds what the BIDS validator calls an error in a data set; the test is skipped where it isn't installed."""
    pytest.importorskip("bids_validator_deno", reason="the BIDS validator is not installed (bids-validator-deno)")

    def check(root: Path) -> list[str]:
        command = "import sys; from bids_validator_deno import cli; sys.exit(cli())"
        done = subprocess.run(
            [sys.executable, "-c", command, str(root), "--format", "json"], capture_output=True, text=True, timeout=60
        )
        issues = json.loads(done.stdout)["issues"]["issues"]
        found = [f"{i['code']} {i.get('subCode', '')} {i['location']}" for i in issues if i["severity"] == "error"]
        assert bool(found) == bool(done.returncode), done.stderr
        return found

    return check


@pytest.fixture
def small_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segmenters that learn in seconds."""
    monkeypatch.setattr("cortexgen.metrics.segmenter.PATCH", 16)
    monkeypatch.setattr("cortexgen.metrics.segmenter.CHANNELS", (8, 16))
    monkeypatch.setattr("cortexgen.metrics.segmenter.RATE", 0.03)
