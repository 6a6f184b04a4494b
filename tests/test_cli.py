"""The program's exit status, as `cortexgen --help` says it."""

import signal
from pathlib import Path

import pytest

from cortexgen.cli import main
from cortexgen.errors import UserError
from cortexgen.modules import DiffuseMorphModule

CONF = Path(__file__).parent / "conf"
SIMULATE = "cortexgen.commands.simulate.simulate_cohort"


def status(*args: object) -> object:
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        return stop.code
    return 0


def test_help_says_what_a_status_means(capsys):
    assert status("--help") == status("--version") == status() == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "exit status: 0 done; 1 a mistake in options or input, or some items failed and the others are done" in text
    assert "130 interrupted, 143 terminated" in text and "--quiet" in text and "--verbose" in text


@pytest.mark.parametrize("line", ["nonsense", "simulate", "simulate out --nobody 3", "fit --config nowhere.yaml"])
def test_mistakes_on_the_command_line(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status(*line.split()) == 1 and not any(tmp_path.iterdir())


@pytest.mark.parametrize(("raised", "expected"), [(None, 0), (UserError("2 of 3 failed"), 1), (KeyboardInterrupt, 130)])
def test_what_ends_a_command(raised, expected, monkeypatch, tmp_path):
    def simulate(*_: object, **__: object) -> None:
        if raised is not None:
            raise raised

    monkeypatch.setattr(SIMULATE, simulate)
    assert status("simulate", tmp_path / "out") == expected


def test_a_defect_is_no_exit_status_but_a_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(SIMULATE, lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        status("simulate", tmp_path / "out")


def test_an_interrupted_training(cohort, tmp_path, monkeypatch, capsys):
    """Which Lightning catches, to end with 1 and no word."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffuseMorphModule, "training_step", interrupt)
    before = signal.getsignal(signal.SIGINT)
    args = ("fit", "--config", "register.yaml", "--config", CONF / "register.yaml", "--data.root", cohort)
    try:
        assert status(*args, "--trainer.default_root_dir", tmp_path / "run") == 130
    finally:
        signal.signal(signal.SIGINT, before)  # which Lightning has the process ignore from now on
    assert capsys.readouterr().err.splitlines()[-1] == "cortexgen: error: interrupted"
