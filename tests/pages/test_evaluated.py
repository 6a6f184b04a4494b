"""The page of an evaluation: that it holds what was measured, whatever was measured."""

import base64
import io
import math
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from cortexgen.errors import UserError
from cortexgen.evaluation.distribution import load_extractors
from cortexgen.evaluation.labelling import GivenLabels, Labelled
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.results import Options
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.table import Table
from cortexgen.evaluation.tables import build
from cortexgen.io import Grid
from cortexgen.metrics.random_features import RandomFeatures
from cortexgen.metrics.resampling import Interval
from cortexgen.pages.evaluated import write_report
from cortexgen.pages.evaluated_brains import growth_maps, registrations, shown_brains

NAME = "<b>& $x_"
VOID = {"meta", "link", "img", "input"}
OPTIONS = Options(("standard",), resamples=4)


class Page(HTMLParser):
    """What a browser would show: headings, text, pictures, and tables by caption as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.open = text, []
        self.headings, self.words, self.images, self.cards = [], [], [], {}
        self.charts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.uncaptioned: list[list[str]] = []
        self.tags: set[str] = set()
        self.published: list[list[str]] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif dict(attrs).get("role") == "img":
            self.charts.append(dict(attrs)["aria-label"])
        elif tag == "h2":
            self.headings.append("")
        elif tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
            if dict(attrs).get("class") == "published":
                self.published.append(self._rows[-1])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        elif tag == "dt":
            self._label = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows
            self.uncaptioned += [] if self._caption else self._rows

    def handle_data(self, data):
        self.words.append(data)
        if "h2" in self.open:
            self.headings[-1] += data
        elif "caption" in self.open:
            self._caption += data
        elif {"th", "td"} & set(self.open) and "sup" not in self.open:
            self._rows[-1][-1] += data
        elif "dt" in self.open:
            self._label += data
        elif "dd" in self.open:
            self.cards.setdefault(self._label, []).append(data)


class Case(NamedTuple):
    evaluation: Evaluation
    tables: dict[str, Table]
    page: Page
    path: Path


def _page(path: Path, evaluation: Evaluation, failures: dict[str, str] | None = None) -> Page:
    write_report(path, evaluation, build(evaluation), failures or {})
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sets(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four of the real brains, moved by a voxel of 8 mm, and one as it is; and a set of two of them."""
    root = tmp_path_factory.mktemp("sets")
    for k in range(1, 6):
        name = f"sub-new{k}" if k < 5 else "sub-copy"
        (root / "five" / name / "anat").mkdir(parents=True)
        for path in (cohort / f"sub-{k:04d}" / "anat").glob("*.nii.gz"):
            volume = nib.load(path)
            moved = np.roll(np.asanyarray(volume.dataobj), 1 if k < 5 else 0, axis=1 + k % 2)
            new = root / "five" / name / "anat" / path.name.replace(f"sub-{k:04d}", name)
            nib.save(nib.Nifti1Image(moved, volume.affine), new)
    for name in ("sub-new1", "sub-new2"):
        shutil.copytree(root / "five" / name, root / "two" / name)
    return root


@pytest.fixture(scope="module")
def case(cohort: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two sets with the labels that came with them."""
    out = tmp_path_factory.mktemp("page")
    real = BrainSet(cohort)
    evaluation = Evaluation(real, out, GivenLabels(real.classes), load_extractors([]), OPTIONS)
    for name, folder in ((NAME, "five"), ("two", "two")):
        evaluation.add(name, BrainSet(sets / folder, grid=real.grid, classes=real.classes))
    path = out / "evaluation.html"
    return Case(evaluation, build(evaluation), _page(path, evaluation), path)


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_page_stands_alone_and_its_pictures_decode(case: Case) -> None:
    page = case.page
    for image in page.images:
        kind, content = image["src"].split(",")
        assert kind == "data:image/webp;base64"
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        picture.load()
        assert picture.size == (int(image["width"]), int(image["height"])) and image["alt"]
        assert len(picture.convert("L").getcolors(1 << 16)) > 20
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+|<script.*?</script>", "", page.text, flags=re.DOTALL)
    assert not re.search(r"https?:|<script|url\([^#]|@import", bare)
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', bare))


def test_sections_come_in_order(case: Case) -> None:
    assert case.page.headings == [
        "What could not be used, and what was done to images",
        "Anatomy",
        "Images",
        "Regional volumes",
        "Nearest training subjects",
        "Parts of training subjects",
        "Slices",
        "How images look",
        "Distributions of regional volumes",
        "Cortex and whole brain",
        "How to read this page",
        "Every comparison",
    ]
    alts = [image["alt"] for image in case.page.images]
    planes = ("Axial", "Coronal", "Sagittal", "The labels", "The labels")
    slices = [k for k, alt in enumerate(alts) if alt.startswith(planes)]
    assert len(slices) == 5
    assert alts[slices[0]] == f"Axial slices. Rows: real (N = 5), {NAME} (N = 5), two (N = 2)."
    assert sum("nearest to a training subject in their images" in alt for alt in alts) == 2


def test_page_in_a_browser(case: Case, look: Callable[[Path], None]) -> None:
    look(case.path)


def test_names_are_text(case: Case) -> None:
    assert "b" not in case.page.tags and any(NAME in word for word in case.page.words)
    assert all(NAME in {row[0] for row in case.page.tables[case.tables[k].caption]} for k in ("anatomy", "regions"))


def test_tables_hold_the_measured_numbers(case: Case) -> None:
    compared = 0
    for name in ("anatomy", "images", "regions", "copies", "comparison"):
        table = case.tables[name]
        head, *body = case.page.tables[table.caption]
        assert head == [column.heading for column in table.columns] and len(body) == len(table.rows)
        for cells, row in zip(body, table.rows, strict=True):
            for cell, column in zip(cells, table.columns, strict=True):
                value = row[column.name]
                if isinstance(value, Interval) and math.isfinite(value.value + value.low + value.high):
                    shown = [_number(part) for part in re.findall(r"[−+]?[\d.]+(?:e[−+]\d+)?", cell)]
                    assert shown == pytest.approx([value.value, value.low, value.high], rel=0.01, abs=0.006)
                elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    assert _number(cell) == pytest.approx(value, rel=0.01, abs=0.006)
                elif isinstance(value, str):
                    assert cell == value
                else:
                    continue
                compared += 1
    assert compared > 200


def test_cards_say_what_was_found(case: Case) -> None:
    cards = case.page.cards
    row = next(r for r in case.evaluation.sets[0].rows if r["name"] == "mean_d" and r["protocol"] == "standard")
    assert cards[f"{NAME}: mean |d|"][0] == f"{row['value'].value:.2f}"
    assert cards[f"{NAME}: copies found"][0] == "1"
    assert cards["two: brains left out"][0] == "0"


def test_the_copy_is_the_nearest_sample(case: Case) -> None:
    rows = case.page.tables["The 10 samples of each set nearest to a training subject"]
    head, first = rows[:2]
    found = dict(zip(head, first, strict=True))
    assert (found["Set"], found["Brain"], found["Nearest"], found["Copy"]) == (NAME, "sub-copy", "sub-0005", "yes")
    assert _number(found["Distance"]) < 1e-3 and len(rows) == 1 + 5 + 2


def test_what_went_wrong_is_listed_and_cut(case: Case, tmp_path: Path) -> None:
    failures = {f"set {k}": f"<i>reason</i> {k}\nsecond line" for k in range(30)}
    page = _page(tmp_path / "page.html", case.evaluation, failures)
    listed = [row for row in page.uncaptioned if row[0] == "set"]
    assert len(listed) == 20 and listed[3] == ["set", "set 3", "<i>reason</i> 3"]
    others = len(case.evaluation.problems) + len(case.evaluation.notes)
    assert f"And {10 + others} more, all of them in evaluation.json." in page.words


def test_how_it_was_measured_is_said(case: Case) -> None:
    facts = dict(row for row in case.page.uncaptioned if len(row) == 2)
    (network,) = case.evaluation.networks
    assert facts["Features for random-feature distance"] == network.label and network.sha256 in network.label
    assert facts["Labels"] == "label maps given with the images of both sides"
    assert (facts["Option seed"], facts["Option resamples"], facts["Option held_out"]) == ("0", "4", "none")
    assert facts["Real brains"].endswith("N = 5") and facts["Set two"].endswith("N = 2")


class PartlyLabelled(GivenLabels):
    """No labels for the brains of a set."""

    def label(self, image, grid, source, given=None) -> Labelled:
        if source.parent.name == "bare":
            raise UserError("no label map for this one")
        return super().label(image, grid, source, given)


def test_a_set_without_labels_beside_one_with(cohort: Path, sets: Path, tmp_path: Path) -> None:
    real = BrainSet(cohort)
    labeller = PartlyLabelled(real.classes)
    evaluation = Evaluation(real, tmp_path, labeller, [], Options(("standard",), pairs=2, resamples=2))
    for name in ("bare", "whole"):
        folder = Path(shutil.copytree(sets / "two", tmp_path / "sets" / name))
        evaluation.add(name, BrainSet(folder, grid=real.grid, classes=real.classes))
    page = _page(tmp_path / "page.html", evaluation)
    assert "no label map for this one" in " ".join(page.words) and "The paper's table" not in page.headings
    assert any(alt.startswith("whole: regional volumes") for alt in page.charts)
    assert not any(alt.startswith("bare: regional volumes") for alt in page.charts)


class Means(RandomFeatures):
    """Features that take no time."""

    def forward(self, volumes: Tensor) -> Tensor:
        return adaptive_avg_pool3d(volumes, 2).flatten(1)


def test_no_labels_and_no_set(cohort: Path, sets: Path, tmp_path: Path) -> None:
    real = BrainSet(cohort, labels=None)
    evaluation = Evaluation(real, tmp_path, None, [Means()], Options(("paper",), pairs=2, resamples=2))
    page = _page(tmp_path / "none.html", evaluation, {"lost": "no such folder"})
    assert page.headings[0] == "What could not be used, and what was done to images"
    assert page.headings[-2:] == ["Slices", "How to read this page"]
    assert ["set", "lost", "no such folder"] in page.uncaptioned and len(page.images) == 1 + 3
    evaluation.add("two", BrainSet(sets / "two", grid=real.grid, labels=None))
    page = _page(tmp_path / "two.html", evaluation)
    published = [row[0] for row in page.published]
    assert "cDPM" in published and "Nadeem et al." in published and "two" not in published
    assert any("published, not measured" in word for word in page.words)
    assert "Anatomy" not in page.headings and "Growth on the template" not in page.headings
    assert "none, no anatomy was measured" in page.words


class Pictures:
    """Takes a page's figures."""

    def __init__(self) -> None:
        self.figures: list[tuple[Figure, str]] = []

    def figure(self, figure: Figure, caption: str, dpi: float) -> None:
        self.figures.append((figure, caption))


def _stub(grid: Grid, image: Tensor, coarse: Grid) -> Any:
    """A labeller without a network, for a page runs none."""

    def pair(moving: Any, fixed: Any) -> tuple[tuple[Tensor, Tensor], None]:
        return (moving.model_image, fixed), None

    frame = SimpleNamespace(velocity_grid=coarse, steps=4)
    registrar = SimpleNamespace(grid=grid, frame=frame, pair=pair, arithmetic=nullcontext)
    registrar.prepared = lambda fixed, *_: fixed[None]
    registrar.atlas = lambda spacing: SimpleNamespace(model_image=image[None])
    mask = torch.ones(1, *coarse.shape, dtype=torch.bool)
    return SimpleNamespace(registrar=registrar, grid=coarse, template=SimpleNamespace(mask=mask))


class MovedLabels(GivenLabels):
    """Label maps, and for each brain a field, which moves one of them along H by a voxel."""

    def label(self, image, grid, source, given=None) -> Labelled:
        velocity = torch.zeros(3, *grid.shape)
        velocity[1] = float(source.name == "sub-new2")
        return Labelled(super().label(image, grid, source, given).labels, None, velocity)


def test_the_registration_of_a_brain_of_each_set_is_drawn_from_the_field_that_labelled_it(
    cohort: Path, sets: Path, tmp_path: Path
) -> None:
    real = BrainSet(cohort)
    labeller = MovedLabels(real.classes)
    evaluation = Evaluation(real, tmp_path, labeller, [], Options(("standard",), pairs=2, resamples=2))
    ours = evaluation.add("two", BrainSet(sets / "two", grid=real.grid, classes=real.classes)).store
    store = evaluation.real.store
    page = Pictures()
    registrations(page, evaluation, _stub(store.grid, store.image(0), store.grid))
    assert [caption.partition(" (fixed)")[0] for _, caption in page.figures] == ["two, sub-new2"]
    moving, fixed, warped = [axes.images[0].get_array() for axes in page.figures[0][0].axes[:3]]
    assert np.abs(warped[:-1] - moving[1:]).max() < 1e-3  # axial: H runs upwards; the brain moves by one voxel
    middle = [k for k, cut in enumerate(ours.image(ours.names.index("sub-new2"))[0]) if np.array_equal(cut, fixed)]
    assert len(middle) == 1


def test_fields_of_six_brains_are_kept(cohort: Path, tmp_path: Path) -> None:
    """Those of all would take more room than everything else that is kept."""
    real = BrainSet(cohort)
    real.scans = [replace(scan, name=f"{scan.name}x{k}") for k in range(4) for scan in real.scans]
    evaluation = Evaluation(real, tmp_path, MovedLabels(real.classes), [], Options(("standard",), resamples=2))
    store = evaluation.real.store
    kept = [i for i in range(len(store)) if store.measured("labels", i, "velocity") is not None]
    assert len(store) == 20 and kept == [0, 4, 8, 11, 15, 19]
    assert evaluation.real.field()[0] == 11  # nearest to the middle, 10
    assert store.measured("labels", 0, "nothing") is store.measured("nothing", 0, "velocity") is None


def test_growth_maps_show_shift_and_ratio_of_spread(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, coarse = Grid((12, 14, 16), np.diag([4.0, 4, 4, 1])), Grid((6, 7, 8), np.diag([8.0, 8, 8, 1]))
    draw = torch.randn(5, 1, *coarse.shape, generator=torch.Generator().manual_seed(0)) / 10
    monkeypatch.setattr(case.evaluation.real, "growth", draw)
    for result, factor, shift in zip(case.evaluation.sets, (2.0, 1.0), (0.5, -0.25), strict=True):
        monkeypatch.setattr(result, "growth", factor * (draw - draw.mean(dim=0)) + draw.mean(dim=0) + shift)
    page = Pictures()
    growth_maps(page, case.evaluation, _stub(grid, torch.ones(1, *grid.shape), coarse))
    assert [caption.partition(":")[0] for _, caption in page.figures] == [NAME, NAME, "two", "two"]
    for (figure, _), value in zip(page.figures, (0.5, 1.0, -0.25, 0.0), strict=True):
        overlay = figure.axes[0].images[1]
        assert np.allclose(overlay.get_array()[:13, :15], value, atol=1e-4)  # beyond lies no voxel of the coarse grid
        assert overlay.get_clim()[1] == pytest.approx(0.5 if value in (0.5, -0.25) else 1.0, abs=0.051)


def test_brains_are_evenly_spaced(case: Case) -> None:
    result = case.evaluation.sets[0]
    assert shown_brains(result, 2) == [0, 4] and shown_brains(result, 3) == [0, 2, 4]
    assert shown_brains(result) == [0, 1, 2, 3, 4] and shown_brains(result, 1) == [0]
    assert shown_brains(case.evaluation.sets[1]) == [0, 1]


def test_people_of_known_age_are_compared_in_bands(
    cohort: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortexgen.evaluation.ageing.LEAST", 3)
    aged = Path(shutil.copytree(sets / "five", tmp_path / "aged"))
    rows = [f"sub-{name}\t{age}\tF" for name, age in (("new1", 25), ("new2", 35.5), ("new3", 39), ("new4", 62))]
    (aged / "participants.tsv").write_text("\n".join(["participant_id\tage\tsex", *rows]))
    real = BrainSet(cohort)
    evaluation = Evaluation(real, tmp_path / "out", GivenLabels(real.classes), load_extractors([]), OPTIONS)
    evaluation.add("aged", BrainSet(aged, grid=real.grid, classes=real.classes))
    bands = build(evaluation)["age_bands"].rows
    counts = {row["band"]: row["n"] for row in bands}
    assert counts == {"20-40": 3, "40-60": 0, "60 and over": 1}  # and one whose age isn't known
    assert {row["region"] for row in bands} == set(evaluation.real.anatomy.regions)
    page = _page(tmp_path / "page.html", evaluation)
    assert "Bands of age" in page.headings
    assert "not measured" in {row[-1] for row in page.tables["Regional volumes in bands of age"]}
