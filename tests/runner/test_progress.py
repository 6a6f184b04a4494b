"""Progress in a log, on a terminal, and where it is to be quiet."""

import io
import re
import sys

import pytest

from cortexgen.runner import progress
from cortexgen.runner.progress import Progress, duration, tracked
from cortexgen.runner.verbosity import speaking


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only go on where a test lets them."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return sleep


def lines_of(items, seconds, clock, capsys, **how):
    for _ in tracked(range(items), "registering", **how):
        clock(seconds)
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_each_few_per_cent_with_the_time_left(clock, capsys):
    lines = lines_of(100, 7.0, clock, capsys)
    assert len(lines) == 20  # each 5 %, which take 35 s, the last of them as the end
    numbers = [int(re.match(r"registering: (\d+) of 100 \(\d+%\)", line)[1]) for line in lines]
    assert numbers == [*range(5, 101, 5)]
    assert lines[0] == "registering: 5 of 100 (5%), 11 min 5 s left"  # 95 items of 7 s
    assert lines[-1] == "registering: 100 of 100 (100%), in 11 min 40 s"


@pytest.mark.parametrize(("items", "seconds", "expected"), [(100, 0.5, 5), (2000, 30.0, 100), (20, 900.0, 20)])
def test_neither_short_nor_long_work_floods_or_starves_a_log(items, seconds, expected, clock, capsys):
    """At most a line each 10 s; one each 1 % where that takes a minute or more, each item where it takes ten."""
    assert len(lines_of(items, seconds, clock, capsys)) == expected


def test_what_is_short_and_not_to_be_kept_says_nothing(clock, capsys):
    assert lines_of(5, 1.0, clock, capsys, leave=False) == []
    assert len(lines_of(5, 11.0, clock, capsys, leave=False)) == 5


def test_a_limit_by_the_clock_counts_where_it_comes_first(clock, capsys):
    with Progress("training", 1000, "step", seconds=100.0) as bar:
        for k in range(10):
            clock(10.0)
            bar.update(text=f"loss {k}".format)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 1 of 1000 (0%), loss 0, 1 min 30 s left" and len(lines) == 11
    assert lines[-2].endswith("loss 9, 0 s left")


def test_what_fails_is_not_said_to_be_done(clock, capsys):
    with pytest.raises(ValueError), Progress("training", 10) as bar:
        bar.update(3)
        raise ValueError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_unless_it_is_to_be_quiet(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress("registering", 4, "image") as bar:
        bar.update(4, lambda: "1 failed")
    shown = len(terminal.getvalue())
    with speaking("quiet"), Progress("registering", 4, "image") as bar:
        bar.update(4)
    assert len(terminal.getvalue()) == shown
    assert "\r" in terminal.getvalue() and "4/4" in terminal.getvalue() and "1 failed" in terminal.getvalue()


def test_quiet_says_nothing(clock, capsys, monkeypatch):
    with speaking("quiet"):
        assert lines_of(100, 7.0, clock, capsys) == []
    monkeypatch.setenv("LOCAL_RANK", "1")  # another process of a training
    assert lines_of(100, 7.0, clock, capsys) == []


def test_durations_read_like_speech():
    said = {0.4: "0 s", 59.6: "1 min 0 s", 200: "3 min 20 s", 7500: "2 h 5 min", 273600: "3 d 4 h"}
    assert {seconds: duration(seconds) for seconds in said} == said
