"""The program called as its users call it, in a process of its own whose cost is known."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cortexgen.errors import UserError

# A small process starts the call: the peak of a large one that does would count as the call's own.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.monotonic()
status = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
wall, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(json.dumps([status, wall, used.ru_utime + used.ru_stime, peak]))
"""
PARTLY = ", the others are "  # done, or evaluated: what a command's last line says then
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


class Cost(NamedTuple):
    """Of a call: seconds on the clock and of the processors (user and system), and the largest resident set in MiB.

    Attributes:
        note: what it said of single subjects that it left out; the others are done.
    """

    wall: float
    processor: float
    peak_mib: float
    note: str = ""


def call(words: Iterable[object], log: Path, threads: int) -> Cost:
    """Run `cortexgen WORDS`; what it says goes to a file.

    Raises:
        UserError: if it fails, with its last line; where that says that all but some subjects are done, it is a note.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "cortexgen", *map(str, words)]
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    with open(log, "ab") as file:
        begin = file.tell()
        launched = subprocess.run(command, stdout=subprocess.PIPE, stderr=file, env=environment)
    if launched.returncode:
        raise UserError(f"{log}: the call was killed")
    status, *cost = json.loads(launched.stdout)
    found = Cost(*cost)
    if not status:
        return found
    said = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines() or [f"{log}: exit status {status}"]
    line = said[-1].removeprefix("cortexgen: error: ")
    if PARTLY not in line:
        raise UserError(line)
    return found._replace(note=line)
