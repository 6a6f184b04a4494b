"""Weights by name and version, of the package and of a folder; their checksums."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest

from cortexgen.cli import main, run
from cortexgen.errors import UserError
from cortexgen.weights import FEATURES, REGISTER, load_features, shipped, shipped_names
from cortexgen.weights.catalogue import catalogue, find, named


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes a folder of one's own weights, copies of the package's smallest, from their names and cards' versions."""
    monkeypatch.setenv("CORTEXGEN_WEIGHTS", str(tmp_path))

    def make(**versions):
        card = json.loads(shipped(FEATURES).with_suffix(".json").read_text())
        for name, version in versions.items():
            shutil.copy(shipped(FEATURES), tmp_path / f"{name}.safetensors")
            (tmp_path / f"{name}.json").write_text(json.dumps(card | {"version": version}))
        return tmp_path

    return make


def test_the_packages_weights_have_versions(monkeypatch):
    monkeypatch.delenv("CORTEXGEN_WEIGHTS", raising=False)
    assert [weights.name for weights in catalogue()] == shipped_names()
    assert find(f"{REGISTER}@1") == find(REGISTER) == shipped(REGISTER)
    assert load_features(f"{FEATURES}@1").weights_hash() == load_features().weights_hash()
    with pytest.raises(UserError, match=rf"^{REGISTER}@7: there is no version '7' of {REGISTER}; there is 1$"):
        load_features(f"{REGISTER}@7")


def test_a_folder_of_ones_own_adds_names_and_versions(folder):
    root = folder(**{"large": 2, "large@4": 1, FEATURES: 2})
    assert find("large").name == "large@4.safetensors" and find("large@2") == root / "large.safetensors"
    assert find(FEATURES) == shipped(FEATURES)  # as without the folder
    assert find(f"{FEATURES}@2") == root / f"{FEATURES}.safetensors"
    with pytest.raises(UserError, match=r"there is 2, 4$"):
        find("large@3")
    with pytest.raises(UserError, match=r"^small: no such file.*or those in CORTEXGEN_WEIGHTS, .*, large$"):
        load_features("small")
    assert load_features("large@4").weights_hash() == load_features().weights_hash()
    assert named("small") is None


def test_a_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("CORTEXGEN_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^CORTEXGEN_WEIGHTS: .*nowhere is no folder$"):
        find("large")


def test_a_damaged_file_is_found_out(folder, capsys):
    root = folder(large=2)
    run(["weights", "verify"])
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["ok"] * len(catalogue())
    content = bytearray((root / "large.safetensors").read_bytes())
    content[-1] ^= 1
    (root / "large.safetensors").write_bytes(content)
    run(["weights", "verify", FEATURES])
    with pytest.raises(UserError, match=r"^1 of \d+ weights can't be verified; .*large\.safetensors: damaged"):
        run(["weights", "verify"])
    (root / "large.json").unlink()
    with pytest.raises(UserError, match="no card with a checksum"):
        run(["weights", "verify", "large"])


def test_one_bad_card_or_link_hides_no_other_weights(folder, capsys):
    root = folder(large=2, small=1)
    (root / "gone.safetensors").symlink_to(root / "not-fetched")
    for text in ("{", "[]", '{"sha256": 7}', '{"version": "new"}', '{"version": null}'):
        (root / "large.json").write_text(text)
        run(["weights", "list"])
        assert "small@1 " in capsys.readouterr().out and find("small") == root / "small.safetensors"
        with pytest.raises(UserError, match=r"large\.json: not a card of weights"):
            find("large")
    with pytest.raises(UserError, match=r"^1 of \d+ weights can't be verified; .*large\.json: not a card"):
        run(["weights", "verify"])


def test_files_are_verified_by_their_paths_too(folder, capsys):
    root = folder(**{FEATURES: 1})
    run(["weights", "verify", str(root / f"{FEATURES}.safetensors"), FEATURES])
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["ok", "ok"]
    with (root / f"{FEATURES}.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"^1 of \d+ weights"):  # the package's, of the same name and version, are whole
        run(["weights", "verify"])
    theirs = [line.endswith(" ok") for line in capsys.readouterr().out.splitlines() if line.startswith(FEATURES)]
    assert theirs == [True, False]


def test_names_are_not_required(capsys):
    with pytest.raises(SystemExit):
        run(["weights", "--help"])
    assert "required" not in capsys.readouterr().out.partition("names  ")[2].partition("options:")[0]
    with pytest.raises(UserError, match=r"^weights: the following arguments are required: action$"):
        run(["weights"])


def test_the_list_says_the_files_own_sizes_and_checksums(folder, capsys):
    folder(large=2)
    main(["weights", "list", "--json", "--quiet"])  # what was asked for is printed all the same
    for row in json.loads(capsys.readouterr().out):
        name = row["name"] if row["name"] in shipped_names() else FEATURES
        content = shipped(name).read_bytes()
        assert row["size"] == len(content) and row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["licence"].startswith("CC") and "--" in row["for"]
    main(["weights", "list", f"{REGISTER}@1"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["weights", f"{REGISTER}@1"]


def test_lists_take_no_pytorch():
    code = "import sys; from cortexgen.cli import main; main(['weights', 'list']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
