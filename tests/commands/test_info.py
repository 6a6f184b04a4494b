"""`cortexgen info`: what bug reports need."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

from cortexgen.cli import main
from cortexgen.commands import info
from cortexgen.training.presets import PRESETS, bundled
from cortexgen.weights import shipped_names


def test_it_says_what_is_installed(capsys, monkeypatch):
    monkeypatch.delenv("CORTEXGEN_WEIGHTS", raising=False)
    main(["info", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["cortexgen"] == version("cortexgen") and facts["versions"]["torch"] == torch.__version__
    assert {"python", "lightning", "monai", "jsonargparse"} <= facts["versions"].keys()
    assert not {"antspyx", "pytest"} & facts["versions"].keys()  # of extras
    assert [weights["name"] for weights in facts["weights"]["files"]] == shipped_names()
    assert facts["presets"] == bundled() and {"register.yaml", "paper/generate.yaml"} <= {*facts["presets"]}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert facts["devices"]["cpu"]["cores"] == cores
    assert set(facts["devices"]) - {"cpu", "mps"} == {f"cuda:{k}" for k in range(torch.cuda.device_count())}
    assert facts["optional"]["shtab"]["version"] == version("shtab")


def test_what_is_missing_is_said_with_how_to_get_it(capsys, monkeypatch, tmp_path):
    def without(name):
        if name in ("deepbet", "distributed"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(info, "version", without)
    monkeypatch.setenv("CORTEXGEN_WEIGHTS", str(tmp_path / "nowhere"))
    main(["info"])
    lines = capsys.readouterr().out.splitlines()
    assert any("deepbet" in line and "missing" in line and "cortexgen[preprocess]" in line for line in lines)
    assert any("distributed" in line and "cortexgen[cluster]" in line for line in lines)
    assert any("nowhere is no folder" in line for line in lines)  # a fault to be reported is no fault of the report


def test_presets_are_those_that_errors_name():
    named = {name.strip(": ") for name in PRESETS.replace("and in baselines/:", "").split(",")}
    assert {name.removeprefix("baselines/") for name in bundled()} == {name.strip() for name in named}


@pytest.mark.parametrize("line", ["info", "--help"])
def test_neither_takes_lightning_nor_monai(line):
    code = f"import sys; from cortexgen.cli import main; main(['{line}']); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1]
    assert not {"'lightning'", "'monai'", "'matplotlib'"} & {*loaded.strip("[]").split(", ")}
    assert ("'torch'" in loaded) == (line == "info")
