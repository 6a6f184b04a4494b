"""Weights from an address, served by Python's own server: whole with their card, or not at all."""

import hashlib
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.weights import FEATURES, load_features, shipped
from cortexgen.weights.catalogue import find


@pytest.fixture
def served(tmp_path):
    """A folder that is served, with the package's smallest weights as version 3 of "large", and its address."""
    root = tmp_path / "served"
    root.mkdir()
    shutil.copy(shipped(FEATURES), root / "large@3.safetensors")
    shutil.copy(shipped(FEATURES).with_suffix(".json"), root / "large@3.json")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv("CORTEXGEN_WEIGHTS", str(mine))
    return mine


def test_what_is_fetched_is_found_by_name(served, folder, capsys):
    root, address = served
    run(["weights", "fetch", f"{address}/large@3.safetensors?download=1"])
    assert "large@3 " in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["large@3.json", "large@3.safetensors"]
    for path in folder.iterdir():
        assert path.read_bytes() == (root / path.name).read_bytes() and path.stat().st_mode & 0o044 == 0o044
    assert load_features("large@3").weights_hash() == load_features().weights_hash()
    run(["weights", "fetch", f"{address}/large%403.safetensors"])
    assert "there already" in capsys.readouterr().err


def test_what_is_not_as_it_should_be_leaves_nothing(served, folder):
    root, address = served
    card, file = root / "large@3.json", root / "large@3.safetensors"
    about, content = json.loads(card.read_text()), file.read_bytes()
    cases = {
        "other.safetensors": "other.json: can't be fetched .404",
        "large@3.json": "expected https://",
        "large@3.safetensors#md5=1": "after # only sha256=",
        "x%0a%1b[31m.safetensors": r"x%0a%1b\[31m.safetensors: expected https://",
        "x%00y.safetensors": "expected https://",
        f"large@3.safetensors#sha256={hashlib.sha256(b'').hexdigest()}": "the card's sha256 is",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            run(["weights", "fetch", f"{address}/{name}"])
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"large@3\.safetensors: damaged, its sha256"):
        run(["weights", "fetch", f"{address}/large@3.safetensors"])
    for text in ("<html>", "[]", "[" * 200000, '{"version": 1e999}', json.dumps(about | {"sha256": ""})):
        card.write_text(text)
        with pytest.raises(UserError, match=r"large@3\.json: (not a card of weights|without a sha256)"):
            run(["weights", "fetch", f"{address}/large@3.safetensors"])
    assert not list(folder.iterdir())


def test_weights_that_are_there_stay(served, folder):
    _, address = served
    (folder / "large@3.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="other weights are there already"):
        run(["weights", "fetch", f"{address}/large@3.safetensors"])
    assert (folder / "large@3.safetensors").read_bytes() == b"mine" and not (folder / "large@3.json").exists()


def test_a_card_that_is_there_stays_too(served, folder):
    (folder / "large@3.json").write_text("{}")
    with pytest.raises(UserError, match="another card is there already"):
        run(["weights", "fetch", f"{served[1]}/large@3.safetensors"])
    assert [path.name for path in folder.iterdir()] == ["large@3.json"]
    assert (folder / "large@3.json").read_text() == "{}"


def test_names_of_the_packages_weights_are_for_other_versions(served, folder):
    root, address = served
    for name in (FEATURES, f"{FEATURES}@2"):
        for end in ("json", "safetensors"):
            shutil.copy(root / f"large@3.{end}", root / f"{name}.{end}")
    with pytest.raises(UserError, match="the package has weights of that name and version"):
        run(["weights", "fetch", f"{address}/{FEATURES}.safetensors"])
    run(["weights", "fetch", f"{address}/{FEATURES}@2.safetensors"])
    assert find(f"{FEATURES}@2").parent == folder and find(FEATURES) == shipped(FEATURES)


@pytest.mark.parametrize(
    "address", ["https://[::1/x.safetensors", "doi:x.safetensors", "doi:/x.safetensors", "x", "ftp:a"]
)
def test_what_is_no_address(address, folder):
    with pytest.raises(UserError, match=r"expected https://\.\.\./NAME\.safetensors, or doi:"):
        run(["weights", "fetch", address])


def test_a_checksum_in_capitals_is_the_same(served, folder):
    card = served[0] / "large@3.json"
    about = json.loads(card.read_text())
    card.write_text(json.dumps(about | {"sha256": about["sha256"].upper()}))
    run(["weights", "fetch", f"{served[1]}/large@3.safetensors#sha256={about['sha256']}"])
    run(["weights", "verify", "large"])


def test_the_checksum_that_was_meant(served, folder):
    digest = hashlib.sha256(shipped(FEATURES).read_bytes()).hexdigest()
    run(["weights", "fetch", f"{served[1]}/large@3.safetensors#sha256={digest.upper()}"])
    assert (folder / "large@3.safetensors").is_file()


def test_nothing_is_fetched_unasked(served, folder, monkeypatch):
    address = f"{served[1]}/large@3.safetensors"
    with pytest.raises(UserError, match=r"an address; `cortexgen weights fetch`"):
        load_features(address)
    with pytest.raises(UserError, match=r"^weights fetch: which\?"):
        run(["weights", "fetch"])
    monkeypatch.delenv("CORTEXGEN_WEIGHTS")
    with pytest.raises(UserError, match="CORTEXGEN_WEIGHTS must name a folder"):
        run(["weights", "fetch", address])
    with pytest.raises(UserError, match=r"127\.0\.0\.1.*can't be fetched"):
        monkeypatch.setenv("CORTEXGEN_WEIGHTS", str(folder))
        run(["weights", "fetch", "http://127.0.0.1:9/large.safetensors"])
    assert not list(folder.iterdir())
