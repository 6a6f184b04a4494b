"""`cortexgen weights`: which trained weights there are, whether their files are whole, and others from elsewhere."""

from json import dumps
from pathlib import Path
from typing import Literal

from cortexgen.errors import UserError
from cortexgen.weights.catalogue import Weights, catalogue, described, find


def weights(action: Literal["list", "verify", "fetch"], names: list[str], json: bool = False) -> None:
    """List the weights that have a name, verify their files against the checksums on their cards, or fetch others.

    There are those of the package and, where the variable CORTEXGEN_WEIGHTS names a folder, those in it: files
    NAME.safetensors or NAME@VERSION.safetensors, each with its card NAME.json beside it, as `cortexgen export` writes
    them. Options that take weights (`--checkpoint`, `--appearance`, `--finer`, `--features`, `--start_from`) take their
    names, and NAME@VERSION. Nothing is downloaded but by fetch.

    Args:
        action: list, or verify, which exits with 1 if a file is damaged or its card has no checksum, or fetch.
        names: Of the weights to list or verify, or files of weights; all that have a name unless given. To fetch,
            addresses, https://.../NAME.safetensors or doi:10.5281/zenodo.1234/NAME.safetensors with the card NAME.json
            beside it, and #sha256=... behind it to have that file or none; they go into the folder of
            CORTEXGEN_WEIGHTS.
        json: Print JSON instead of a table.
    """
    if action == "fetch":
        if not names:
            raise UserError("weights fetch: which? an address, https://.../NAME.safetensors")
        from cortexgen.weights.fetching import fetch  # imports PyTorch, which lists do without

        names = [str(fetch(name).path) for name in names]
    files = [Path(name) if Path(name).is_file() else find(name) for name in names]
    there = [described(path) for path in dict.fromkeys(files)] if names else catalogue()
    states = [each.verify() or "ok" for each in there] if action == "verify" else []
    rows = [_row(each) for each in there]
    for row, state in zip(rows, states, strict=False):
        row["state"] = state
    print(dumps(rows, indent=2) if json else _table(rows, bool(states)))
    wrong = [state for state in states if state != "ok"]
    if wrong:
        raise UserError(f"{len(wrong)} of {len(there)} weights can't be verified; {wrong[0]}")


def _row(each: Weights) -> dict[str, object]:
    size = each.path.stat().st_size
    return {
        "name": each.name,
        "version": each.version,
        "for": each.use,
        "licence": each.licence or "unknown",
        "size": size,
        "sha256": each.sha256,
        "file": str(each.path),
    }


def _table(rows: list[dict[str, object]], verified: bool) -> str:
    """Of a terminal's width where checksums stand alone in a column of their own at the end."""
    lines: list[tuple[str, ...]] = [("weights", "for", "licence", "size", "state" if verified else "sha256")]
    for row in rows:
        megabytes = f"{int(str(row['size'])) / 1e6:.1f} MB"
        last = row["state"] if verified else row["sha256"]
        lines.append((f"{row['name']}@{row['version']}", *map(str, (row["for"], row["licence"], megabytes, last))))
    widths = [max(len(line[k]) for line in lines) for k in range(4)]
    return "\n".join("  ".join([*map(str.ljust, line, widths), line[4]]).rstrip() for line in lines)
