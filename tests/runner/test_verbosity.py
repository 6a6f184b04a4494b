"""`--quiet` and `--verbose`: where they may stand, and how far they reach."""

import subprocess
import sys

import pytest

from cortexgen.errors import UserError
from cortexgen.runner.verbosity import note, say, speaking, split, verbosity


@pytest.mark.parametrize(
    ("line", "others", "level"),
    [
        ("--quiet register a b", "register a b", "quiet"),
        ("register a b --quiet", "register a b", "quiet"),
        ("fit --verbose --config x", "fit --config x", "verbose"),
        ("register a b", "register a b", "normal"),
        ("register -- --quiet", "register -- --quiet", "normal"),
        ("validate --verbose false", "validate --verbose false", "normal"),  # Lightning's
    ],
)
def test_they_may_stand_anywhere(line, others, level):
    assert split(line.split()) == (others.split(), level)


def test_both_contradict_each_other():
    with pytest.raises(UserError, match="--quiet and --verbose: give one of them"):
        split(["--quiet", "register", "--verbose"])


def test_processes_that_are_started_know_it():
    ask = [sys.executable, "-c", "from cortexgen.runner.verbosity import verbosity; print(verbosity())"]
    with speaking("quiet"):
        assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "quiet"
    assert verbosity() == "normal"


def test_quiet_keeps_results_and_notes_to_itself(capsys):
    with speaking("quiet"):
        say("done")
        note("begun")
    say("done again")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("done again\n", "")
