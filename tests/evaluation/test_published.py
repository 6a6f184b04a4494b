import os
import re
from pathlib import Path

import pytest

from cortexgen.evaluation.published import (
    METRICS,
    OWN,
    REAL_PAIRS_MS_SSIM,
    REGISTRATION,
    SAMPLES,
    UNSTATED_MMD,
    published_rows,
)
from cortexgen.evaluation.table import Column, Table, measured


@pytest.fixture(scope="module")
def paper() -> str:
    data = Path(os.environ.get("CORTEXGEN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = data.parent / "PAPER.md"
    if not path.is_file():
        pytest.skip("the paper (PAPER.md) is not here; set CORTEXGEN_DATA to the folder beside it")
    return path.read_text(encoding="utf-8")


def test_every_number_is_the_papers(paper):
    head, *lines = paper[paper.index("Model\tFID1") : paper.index("\nTable 1:")].strip().split("\n")
    printed = {name.replace(" ", ""): [float(v) for v in values] for name, *values in (r.split("\t") for r in lines)}
    *baselines, own = published_rows()
    assert {row["method"]: [row[c.name] for c in METRICS] for row in baselines} == printed
    headings = [re.sub(r"\s|\(.*\)", "", heading) for heading in head.split("\t")[1:]]
    assert [re.sub(r"\s|\(.*\)", "", c.title) for c in METRICS] == headings

    said = re.search(r"Our model obtained an \*\*MS-SSIM of ([\d.]+)\*\* and \*\*MMD of ([\d.]+)\*\*", paper)
    assert said and (own["ms_ssim"], own["mmd_unstated"]) == (float(said[1]), float(said[2]))
    assert f"Quantitative metrics for {SAMPLES} synthetic MRIs" in paper
    assert f"MS-SSIM between real sample pairs is {REAL_PAIRS_MS_SSIM}" in paper
    assert f"(PSNR) of {REGISTRATION['psnr']} dB and an SSIM score of {REGISTRATION['ssim']}" in paper


def test_six_baselines_have_nine_metrics_each_and_the_papers_row_has_two():
    *baselines, own = published_rows()
    assert len(baselines) == 6 and len(METRICS) == len({c.name for c in METRICS}) == 9
    assert all(isinstance(row[c.name], float | int) for row in baselines for c in METRICS)
    assert sum(float(row[c.name]) for row in baselines for c in METRICS[:6]) == pytest.approx(
        7.996
    )  # of the printed table
    assert [c.name for c in (*METRICS, UNSTATED_MMD) if own.get(c.name) is not None] == list(OWN)
    assert {row["n"] for row in baselines} == {400} and own["n"] is None


def test_rows_say_where_they_were_published_and_none_passes_as_measured():
    rows = published_rows()
    assert all("Cortex-Level Brain MRI Generation" in str(row["published"]) for row in rows)
    assert not any(measured(row) for row in rows)
    columns = [Column("method"), *METRICS, UNSTATED_MMD]
    ours = {"method": "ours", "fid_resnet50": 0.5}
    text = Table([ours, *rows], columns).to_markdown()
    assert "**" not in text and text.count("<sup>a</sup>") == 6 + 1 and text.count("published, not measured") == 2
    assert "3314614" in text and "0.8321" in text and "1361" in text  # as the paper prints them
