"""Brains that lie in a page: what is embedded, how much room it takes, and what is there without a program."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.io import Grid
from cortexgen.pages.report import Report
from cortexgen.pages.viewer import MOST, Viewer, script

GRID = Grid((20, 22, 24), np.array([[0, 0, 2.0, -20], [0, 2.0, 0, -22], [2.0, 0, 0, -18], [0, 0, 0, 1]]))


def volume(content: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content)))


def shown(name: str = "sub-1") -> Viewer:
    """A brain that fills most of the grid, brighter to the front; its right part is larger than the template's."""
    image = torch.zeros(1, *GRID.shape)
    image[:, 4:16, 5:18, 3:20] = torch.linspace(0.5, 0.9, 13)[:, None]
    labels = (image > 0.6).long() * 2035 + (image > 0.8).long() * 7
    field = torch.zeros(3, *GRID.shape)
    field[2] = -0.2 * (torch.arange(24) - 14.0).clamp(min=0)
    viewer = Viewer({2035: "insula </script>"})
    viewer.add("<b>", name, image, GRID, labels.float(), (field, GRID), "age 30")
    return viewer


@pytest.fixture(scope="module")
def data() -> dict:
    return shown().data()


def test_image_lies_where_it_was(data: dict) -> None:
    found = volume(data["brains"][0]["image"])
    for x, y, z in ((4, 6, 5), (12, 17, 15), (19, 10, 9)):
        place = nib.affines.apply_affine(GRID.affine, (z, y, x))
        voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(found.affine), place)).astype(int)
        assert found.get_fdata()[tuple(voxel)] == pytest.approx(0.5 + 0.4 * (y - 5) / 12, abs=2e-3)
    assert found.get_data_dtype() == np.uint8 and found.shape < GRID.shape[::-1]


def test_labels_keep_their_names_and_growth_its_sign(data: dict) -> None:
    brain, names = data["brains"][0], data["classes"]["labels"]
    labels = volume(brain["labels"]).get_fdata()
    assert {names[int(k)] for k in np.unique(labels)} == {"", "insula </script>", "2042"}
    growth, image = volume(brain["growth"]), volume(brain["image"]).get_fdata()
    share = growth.get_fdata()
    value = share * np.abs(share) * data["growth"]["largest"]
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(growth.affine), (-20 + 2 * 18, 0, 0))).astype(int)
    assert value[tuple(voxel)] == pytest.approx(-np.log(0.8), abs=0.01)
    assert np.abs(value[image == 0]).max() < 1e-3 and np.abs(value[2:8]).max() < 1e-3


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = Report("t")
    report.section("Brains")
    report.viewer(shown(), "A picture.")
    path = tmp_path_factory.mktemp("viewer") / "page.html"
    report.write(path)
    return path


def test_a_page_runs_its_own_program_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    own, program = re.findall(r"<script(?: [^>]*)?>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\">" in text and program == script()
    assert "Redistributions in binary form must reproduce" in program
    assert json.loads(own)["classes"]["labels"][1] == "insula </script>" and "<b>" not in text.replace(program, "")
    report = Report("t")
    report.viewer(Viewer(), "Nothing.")
    assert report.blocks == [] and "script-src" not in report.render()


def test_a_picture_is_there_where_no_program_or_no_webgl_is(page: Path, page_in) -> None:
    still, live = ".viewer .still img", ".viewer .live"
    plain = page_in(page, java_script_enabled=False)
    assert plain.is_visible(still) and not plain.is_visible(live) and plain.is_visible(".still noscript p")
    flat = page_in(page, ("--disable-3d-apis",))
    flat.wait_for_selector("text=need WebGL2")
    assert flat.is_visible(still) and not flat.is_visible(live)


def test_twelve_brains_take_less_than_15_megabytes() -> None:
    """Of the template's size and noise as of a scan, each of them with labels and a field."""
    template, noise = load_template(), torch.Generator().manual_seed(0)
    image, labels = (volume[:, ::2, ::2, ::2] for volume in (template.image, template.labels))
    image = (image + 0.02 * torch.randn(image.shape, generator=noise) * (image > 0.05)).clamp(0, 1)
    coarse = template.grid.coarse(16)
    field = torch.randn(3, *coarse.shape, generator=noise) / 4
    viewer = Viewer()
    viewer.add("one", "one", image, template.grid.coarse(2), labels, (field, coarse))
    one = sum(map(len, viewer.data()["brains"][0].values()))
    assert one > 300_000 and MOST == 12
    assert MOST * one + len(script()) + 1_500_000 < 15_000_000  # the rest of a page, its picture among it
