"""The demo at its smallest: everything but the quality."""

import json
from html.parser import HTMLParser

import pytest

from cortexgen.cli import main
from cortexgen.io.bids import read_tsv


class Images(HTMLParser):
    """Collects the sources of images."""

    def __init__(self):
        super().__init__()
        self.sources = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    arguments = [
        "--subjects",
        16,
        "--register_steps",
        2,
        "--generate_steps",
        2,
        "--appearance_steps",
        2,
        "--samples",
        2,
    ]
    main(["demo", str(folder), *map(str, arguments)])
    return folder


def test_demo_writes_cohort_metrics_and_report(out):
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["registration"]["subjects"] == 8
    assert 1 < metrics["registration"]["error_before_mm"] < 6
    assert metrics["registration"]["error_mm"] < metrics["registration"]["error_before_mm"]
    assert metrics["registration"]["folded_voxels"] == metrics["generation"]["folded_voxels"] == 0
    assert set(metrics["seconds"]) == {
        "simulate",
        "train_register",
        "register",
        "train_generate",
        "train_appearance",
        "generate",
        "measure",
    }
    assert len(read_tsv(out / "brains" / "participants.tsv")) == 2
    manifest = json.loads((out / "brains" / "manifest.json").read_text())
    assert manifest["options"]["appearance"] == "learned"
    assert all(record["style"].keys() >= {"white", "contrast", "noise"} for record in manifest["records"])
    page = Images()
    page.feed((out / "report.html").read_text())
    assert len(page.sources) >= 8 and all(source.startswith("data:image/webp;base64,") for source in page.sources)


def test_report_in_a_browser(out, look):
    look(out / "report.html")
