import base64
import io
import json
import re
from html import unescape
from urllib.parse import unquote

import nibabel as nib
import numpy as np
from PIL import Image

from cortexgen.figures import sheet_path
from cortexgen.pages import preprocessed as page
from cortexgen.pages.preprocessed import cohort_overview
from cortexgen.preprocess.cohort import judge

NASTY = "<script>alert(\"x\")</script> & 'text'"
STEPS = [{"name": "Resample", "version": 2, "options": {"spacing": 1.0, "shape": [32, 128, NASTY]}, "tools": {}}]


def _rows():
    """Ten scans: an outlier, one that a step flagged, and a failed one."""
    rows = [
        {"participant_id": f"sub-{k:02d}", "status": "ok", "flags": None, "brain_volume_ml": 1400.0 + 10 * k}
        for k in range(10)
    ]
    rows[2]["brain_volume_ml"] = 2400.0
    rows[5] |= {"status": "flagged", "flags": f"residue of 43 ml {NASTY}"}
    rows.append({"participant_id": "sub-é_ses-1", "status": "failed", "reason": f"not an image {NASTY}"})
    return rows


def _sheets(out, names, size=(1600, 40)):
    for k, name in enumerate(names):
        path = sheet_path(out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size).save(path)


def _brains(out, names):
    """Written scans, one with labels, and a file that can't be read."""
    for k, name in enumerate(names):
        folder = out / name / "anat"
        folder.mkdir(parents=True)
        ball = np.linalg.norm(np.indices((24, 28, 20)) - 10, axis=0) < 5 + k % 4
        for suffix, data in (("T1w", ball * 0.5), ("dseg", ball * 2))[: 2 if k == 1 else 1]:
            image = nib.Nifti1Image(data.astype(np.float32), np.diag([2.0, 2, 2, 1]))
            nib.save(image, folder / f"{name}_{suffix}.nii.gz")
    (out / names[-1] / "anat" / f"{names[-1]}_T1w.nii.gz").write_bytes(b"none")
    (out / "dseg.tsv").write_text("index\tname\n0\tUnknown\n2\tCerebral-Cortex\n")


def _page(out, rows=None, steps=STEPS):
    rows = _rows() if rows is None else rows
    judge(rows)
    cohort_overview(out, rows, steps)
    assert not list(out.glob(".tmp-*"))
    return (out / "preprocess.html").read_text(encoding="utf-8")


def _sections(text):
    """Heading and content of each section, in order."""
    parts = re.split(r'<h2 id="section-\d+">(.*?)</h2>', text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _shown(section):
    return re.findall(r'alt="Sheet of (.*?)"', section)


def test_failed_scans_come_first_then_flagged_then_everyone(tmp_path):
    _sheets(tmp_path, [row["participant_id"] for row in _rows()[:-1]])
    text = _page(tmp_path)
    sections = _sections(text)
    headings = ["Failed (1)", "Flagged (2)", "Measures", "All scans (11)", "Sheets without a flag", "Steps"]
    assert list(sections) == headings
    assert "sub-é_ses-1" in sections["Failed (1)"] and "not an image" in sections["Failed (1)"]
    assert _shown(sections["Flagged (2)"]) == ["sub-02", "sub-05"]
    assert "Brain volume = 2400 ml" in sections["Flagged (2)"] and "residue of 43 ml" in sections["Flagged (2)"]
    assert _shown(sections["Sheets without a flag"]) == [f"sub-{k:02d}" for k in (0, 1, 3, 4, 6, 7, 8, 9)]
    status = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', sections["All scans (11)"])
    assert dict(status) == {f"sub-{k:02d}": "flagged" if k in (2, 5) else "ok" for k in range(10)} | {
        "sub-é_ses-1": "failed"
    }
    cards = re.findall(r'<dt>(.*?)</dt><dd class="value">(.*?)</dd>', text)
    assert cards == [("Done", "8"), ("Flagged", "2"), ("Failed", "1"), ("Brain volume", "1455 ml")]


def test_page_stands_alone_and_everything_is_escaped(tmp_path):
    rows = [*_rows(), {"participant_id": "sub-<b>&", "status": "ok", "flags": ""}]
    _sheets(tmp_path, ["sub-00", "sub-<b>&"])
    text = _page(tmp_path, rows)
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "<script" not in bare and "<b>" not in bare and "//" not in bare and not re.search(r"url\([^#]", bare)
    assert unescape(bare).count(NASTY) == 3
    assert all(source.startswith("data:") for source in re.findall(r'src="(.*?)"', text))
    links = [link for link in re.findall(r'href="(.*?)"', text) if not link.startswith(("#", "data:"))]
    assert [(tmp_path / unquote(unescape(link))).is_file() for link in links] == [True, True]
    assert "shape = [32, 128, " in bare and "n/a" in _sections(text)["Steps"]


def test_brains_turn_the_flagged_ones_first(tmp_path, monkeypatch):
    _brains(tmp_path, [f"sub-{k:02d}" for k in range(10)])
    text = _page(tmp_path)
    assert list(_sections(text))[3:5] == ["Brains", "All scans (11)"]
    (content,) = re.findall(r'type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    data = json.loads(content)
    names = ["sub-02", "sub-05", "sub-00", "sub-01", "sub-03", "sub-04", "sub-06", "sub-07", "sub-08"]
    assert [brain["name"] for brain in data["brains"]] == names  # sub-09 can't be read
    assert ["labels" in brain for brain in data["brains"]] == [name == "sub-01" for name in names]
    assert data["classes"]["labels"] == ["", "Cerebral-Cortex"]
    monkeypatch.setattr(page, "MOST", 3)
    assert "the first 3" in _sections(_page(tmp_path))["Brains"]


def test_page_in_a_browser(tmp_path, look):
    _sheets(tmp_path, [row["participant_id"] for row in _rows()[:-1]])
    _brains(tmp_path, ["sub-00", "sub-01", "sub-02", "sub-03"])
    text = _page(tmp_path)
    assert "<title>sub-03: 1430</title>" in text
    look(tmp_path / "preprocess.html")


def test_pictures_are_the_sheets_made_small(tmp_path):
    _sheets(tmp_path, ["sub-00"], (1600, 400))
    sections = _sections(_page(tmp_path))
    (content,) = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", sections["Sheets without a flag"])
    small = Image.open(io.BytesIO(base64.b64decode(content)))
    assert small.size == (800, 200)
    large = np.asarray(Image.open(sheet_path(tmp_path, "sub-00")), dtype=float)
    halved = large.reshape(200, 2, 800, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(halved.ravel(), np.asarray(small, dtype=float).ravel())[0, 1] > 0.98
    assert sections["Sheets without a flag"].count("(no sheet)") == 7
    assert sections["Flagged (2)"].count("(no sheet)") == 2


def test_beyond_its_room_a_page_links_to_sheets_the_flagged_come_first(tmp_path, monkeypatch):
    names = [row["participant_id"] for row in _rows()[:-1]]
    _sheets(tmp_path, names)
    sizes = [len(page._thumbnail(sheet_path(tmp_path, name), 800)) for name in names]
    monkeypatch.setattr(page, "ROOM", 4 * min(sizes))
    sections = _sections(_page(tmp_path))
    rest = sections["Sheets without a flag"]
    shown, linked = _shown(rest), re.findall(r'<li><a href="(.*?)">', rest)
    assert _shown(sections["Flagged (2)"]) == ["sub-02", "sub-05"]
    assert linked and len(shown) + len(linked) == 8
    assert all((tmp_path / link).is_file() for link in linked)
    content = "".join(re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", "".join(sections.values())))
    assert len(content) < 4 / 3 * (page.ROOM + 3 * max(sizes))


def test_the_same_rows_give_the_same_page_and_an_empty_cohort_a_short_one(tmp_path):
    for name in ("a", "b"):
        _sheets(tmp_path / name, ["sub-00", "sub-02"])
    assert _page(tmp_path / "a") == _page(tmp_path / "b")
    (tmp_path / "c").mkdir()
    assert list(_sections(_page(tmp_path / "c", [], []))) == ["All scans (0)", "Steps"]
    only = [{"participant_id": "sub-01", "status": "failed", "reason": "no such file"}]
    assert list(_sections(_page(tmp_path / "c", only))) == ["Failed (1)", "All scans (1)", "Steps"]
