"""How commands may be spelled: what their functions are called with."""

import functools
from pathlib import Path

import pytest

from cortexgen import commands
from cortexgen.cli import run
from cortexgen.errors import UserError


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Runs a command whose function only notes what it is called with, in a folder with `sets.yaml`."""
    monkeypatch.chdir(tmp_path)
    Path("sets.yaml").write_text("real: r\nsynthetic: [a, b]\nout: o\nseed: 5\n")
    load = commands.load

    def note(name):
        @functools.wraps(load(name))
        def function(**given):
            return {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}

        return function

    monkeypatch.setattr("cortexgen.commands.arguments.load", note)
    return lambda line: run(line.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("generate out --num-samples 3", {"out": "out", "num_samples": 3}),
        ("generate --num_samples=3 out", {"out": "out", "num_samples": 3}),
        ("generate --native-size out", {"out": "out", "native_size": True}),
        ("generate out --save-fields --age -5", {"save_fields": True, "age": -5.0}),
        ("generate out --native_size false", {"native_size": False}),
        ("generate out --conditions.brain_volume_ml 1400", {"conditions": {"brain_volume_ml": 1400.0}}),
        ("generate -- -out", {"out": "-out"}),
        ("register out --moving a-b --fixed c", {"images": "c", "out": "out", "moving": "a-b"}),
        ("register out --fixed=c-d", {"images": "c-d", "out": "out"}),
        ("register c out --mirror no", {"images": "c", "out": "out", "mirror": False}),
        (
            "bids in out participant --participant-label 01 sub-2 --session-label 1 --n_cpus 2",
            {"bids_dir": "in", "participant_label": ["01", "sub-2"], "session_label": ["1"], "n_cpus": 2},
        ),
        ("bids in --participant_label=007 -- out group", {"participant_label": ["007"], "analysis_level": "group"}),
        ("evaluate real set out", {"real": "real", "synthetic": ["set"], "out": "out"}),
        ("evaluate real a n=b out --keep", {"synthetic": ["a", "n=b"], "out": "out", "keep": True}),
        ("evaluate --keep r a --seed 3 b o", {"synthetic": ["a", "b"], "out": "o", "keep": True, "seed": 3}),
        ("evaluate r a o --rescale false", {"synthetic": ["a"], "out": "o", "rescale": False}),
        ("evaluate --config sets.yaml", {"real": "r", "synthetic": ["a", "b"], "out": "o", "seed": 5}),
        ("evaluate --config=sets.yaml --seed 3", {"synthetic": ["a", "b"], "seed": 3}),
    ],
)
def test_places_options_and_switches_in_any_order(called, line, expected):
    assert expected.items() <= called(line).items()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("generate", "generate: the following arguments are required: out"),
        ("generate out more", "unrecognized arguments: more"),
        ("generate out --num-sample", "expected one argument"),
        ("generate out --num-samples 2.5", "^generate: num_samples: expected int, got 2.5$"),
        ("generate out --sampler euler", "^generate: sampler: expected ancestral or ddim or dpm\\+\\+, got euler$"),
        ("generate out --age old", "^generate: age: expected float, got old$"),
        ('generate out --style {"noise":"a"}', "^generate: style: expected float, got {.noise.: .a.}$"),
        ("weights frobnicate", "^weights: action: expected list or verify or fetch, got frobnicate$"),
        ("generate out --held-out --seed 3", "unrecognized arguments: --held_out"),
        ("register out --fixed", "unrecognized arguments: --fixed"),
        ("evaluate a b --seed 3", "evaluate: the following arguments are required: out"),
        ("evaluate r a o --config nowhere.yaml", "nowhere.yaml: no such file, and no bundled preset"),
    ],
)
def test_mistakes_are_one_line(called, line, message):
    with pytest.raises(UserError, match=message) as error:
        called(line)
    assert "\n" not in str(error.value)
