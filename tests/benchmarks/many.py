"""How long `cortexgen evaluate` takes for many brains: people of a cohort, again and again, against themselves.

    python tests/benchmarks/many.py ixi OUT --brains 400

Both sets hold as many brains with their label maps, the second one beginning at another person. The whole command is
timed, on the clock and in processor seconds, which are its processes' too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cortexgen.data.cohort import Scan, read_cohort


def repeated(scans: list[Scan], out: Path, count: int, first: int) -> Path:
    """A data set of `count` brains, scans in turn from the `first` on."""
    shutil.rmtree(out, ignore_errors=True)
    for k in range(count):
        scan = scans[(first + k) % len(scans)]
        folder = out / f"sub-{k:03}" / "anat"
        folder.mkdir(parents=True)
        for path in filter(None, (scan.image, scan.labels)):  # copies: links would be told to be one file
            shutil.copy(path, folder / path.name.replace(scan.subject, f"sub-{k:03}"))
    for name in ("dataset_description.json", "dseg.tsv"):
        shutil.copy(scans[0].image.parents[2] / name, out)
    return out


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="with label maps")
    parser.add_argument("out", type=Path)
    parser.add_argument("--brains", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    scans = [scan for scan in read_cohort(given.cohort) if scan.labels and not scan.problem]
    sets = [
        repeated(scans, given.out / name, given.brains, first)
        for name, first in (("real", 0), ("set", len(scans) // 2))
    ]
    shutil.rmtree(given.out / "evaluation", ignore_errors=True)
    call = [sys.executable, "-m", "cortexgen", "evaluate", *map(str, sets), str(given.out / "evaluation")]
    start, before = time.monotonic(), os.times()
    subprocess.run([*call, "--labels", "given", "--protocol", "standard", "--jobs", str(given.jobs)], check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    print(json.dumps({"minutes": (time.monotonic() - start) / 60, "processor minutes": spent / 60}))


if __name__ == "__main__":
    main()
