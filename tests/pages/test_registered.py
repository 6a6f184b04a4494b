import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.evaluation import registration
from cortexgen.evaluation.registration import MEASURES, RegistrationEvaluation, evaluate_registration
from cortexgen.evaluation.table import PUBLISHED
from cortexgen.io import write_field, write_volume
from cortexgen.io.bids import derivative, transform, write_tsv
from cortexgen.metrics.resampling import bootstrap_interval
from cortexgen.pages.registered import write_registered_report

SHIFTS = {"sub-01": 3, "sub-02": 0, "sub-03": 2, "sub-04": 1}  # voxels between fixed and warped


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory) -> RegistrationEvaluation:
    """The template as fixed image; "shifted" misses it by some voxels, "plain" has images alone."""
    root = tmp_path_factory.mktemp("registered")
    template = load_template()
    template = template.to(template.grid.at_spacing(8.0))
    for name, shift in SHIFTS.items():
        write_volume(derivative(root / "fixed", name, "T1w"), template.image, template.grid)
        write_volume(derivative(root / "fixed", name, "dseg"), template.labels, template.grid, np.uint8)
        moved, labels = template.image.roll(shift, -1), template.labels.roll(shift, -1)
        for method in ("shifted", "plain <b>"):
            write_volume(derivative(root / method, name, "T1w", desc="warped"), moved, template.grid)
        write_volume(derivative(root / "shifted", name, "dseg", desc="warped"), labels, template.grid, np.uint8)
        field = torch.zeros(3, *template.grid.shape)
        field[2] = -shift
        write_field(transform(root / "shifted", name, template.name, "T1w"), field, template.grid)
    derivative(root / "plain <b>", "sub-03", "T1w", desc="warped").write_bytes(b"nothing")
    write_tsv(root / "fixed/dseg.tsv", [{"index": k, "name": n} for k, n in enumerate(template.classes)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "bootstrap_interval", partial(bootstrap_interval, n=50))
        return evaluate_registration(root / "fixed", {m: root / m for m in ("shifted", "plain <b>")}, root / "out")


@pytest.fixture(scope="session")
def path(evaluation, tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("page") / "registration.html"
    write_registered_report(path, evaluation)
    return path


@pytest.fixture(scope="session")
def page(path) -> str:
    """Without its scripts."""
    return re.sub(r"<script.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_page_in_a_browser(path, look):
    look(path)


def test_page_stands_alone_and_escapes(page):
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) <= {"data:", "#figu", *re.findall(r'href="(#sect)', page)}
    assert "plain &lt;b&gt;" in page and "plain <b>" not in page and "<script" not in page


def test_page_shows_worst_median_and_best_pair_of_each_method(page):
    captions = re.findall(r"<figcaption><strong>Figure \d+.</strong> (.*?)</figcaption>", page)
    shown = [re.match(r"(.+?), (\w+): (sub-\d+), (.+)\.$", caption) for caption in captions]
    pairs = [match.groups()[:3] for match in shown if match]
    assert pairs == [
        ("shifted", "worst", "sub-01"),
        ("shifted", "median", "sub-03"),
        ("shifted", "best", "sub-02"),
        ("plain &lt;b&gt;", "worst", "sub-01"),
        ("plain &lt;b&gt;", "median", "sub-04"),
        ("plain &lt;b&gt;", "best", "sub-02"),
    ]
    assert "Dice 1.000" in captions[2] and "SSIM in the brain 0.99" in captions[5]
    assert sum("of each class" in caption for caption in captions) == 2 and len(captions) == 9


def test_page_has_every_number_and_reason(page, evaluation):
    text = re.sub(r"<[^>]+>", "|", page)
    row = next(r for r in evaluation.tables["registration"].rows if r["method"] == "shifted")
    for name in ("dice", "hd95", "psnr", "brain_ssim"):
        column = next(c for c in MEASURES if c.name == name)
        assert f"{row[name].value:{column.format}} [{row[name].low:{column.format}}, " in text
    published = next(r for r in evaluation.tables["registration"].rows if r[PUBLISHED])
    assert "published, not measured: Nadeem" in text and f"{published['psnr']:.2f}" in text
    (problem,) = evaluation.problems.items()
    assert problem[0] == "plain <b>/sub-03" and "not a readable NIfTI image" in text
    assert "before registration" in text and "through affines only" in text
    assert text.count("|sub-0") >= 4 * 3 - 1
