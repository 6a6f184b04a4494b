"""`cortexgen export`: a checkpoint as a weights file with its card."""

from pathlib import Path
from typing import Any

from cortexgen.errors import UserError
from cortexgen.io import write_json
from cortexgen.io.bids import read_tsv
from cortexgen.io.tables import grouped
from cortexgen.runner.verbosity import say
from cortexgen.weights import load_checkpoint, save_weights, split_tensors
from cortexgen.weights.catalogue import AT


def export(
    checkpoint: Path,
    out: Path,
    registrations: Path | None = None,
    data: str = "",
    licence: str = "",
    recipe: list[str] | None = None,
    half: bool = False,
    measured: Path | None = None,
    version: int = 1,
) -> None:
    """Write a checkpoint as safetensors, to be given to `register` or `generate --checkpoint`, with a card beside it.

    The card (OUT with .json) holds the configuration, the steps, the template and grid, the file's hash, and what the
    options add.

    Args:
        checkpoint: A .ckpt file of `cortexgen fit`.
        out: The file to write, OUT.safetensors.
        registrations: registration.tsv of a `predict` with this checkpoint; the means over its validation subjects
            and the split go into the card.
        data: What the weights were trained on.
        licence: Of those data.
        recipe: The commands that make the weights again.
        measured: A table of other figures (tab-separated), whose rows go into the card.
        half: Write parameters in float16, at half the size.
        version: Of the weights, from 1 on; `--checkpoint NAME@VERSION` asks for it.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: expected a name that ends in .safetensors")
    for path in (out, out.with_suffix(".json")):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: is there already; choose another name")
    name, at, number = out.stem.partition(AT)
    if version < 1 or (at and number != str(version)):
        expected = f"{number}, as in the name {out.stem}" if at else "1 or more"
        raise UserError(f"--version: expected {expected}, got {version}")
    module, steps = load_checkpoint(checkpoint)
    content: dict[str, Any] = {
        "name": name,
        "version": version,
        "module": type(module).__name__,
        "parameters": sum(p.numel() for p in module.parameters()),
        "steps": steps,
        "hyper_parameters": dict(module.hparams),
        "contract": split_tensors(module.contract)[0],
    }
    content |= {key: value for key, value in (("data", data), ("licence", licence), ("recipe", recipe)) if value}
    if registrations:
        content |= _measured(registrations)
    if measured:
        content["measured"] = read_tsv(measured)
    content["sha256"] = save_weights(out, module, half)
    write_json(out.with_suffix(".json"), content)
    say(f"{out} ({out.stat().st_size / 1e6:.1f} MB), card {out.with_suffix('.json')}")


def _measured(table: Path) -> dict[str, Any]:
    """Split and mean metrics of the validation subjects of a registration.tsv."""
    rows = read_tsv(table)
    if "split" not in rows[0]:
        raise UserError(f"{table}: expected the registration.tsv of `cortexgen predict`, with a column split")
    sides = grouped(rows, lambda row: str(row["split"]))
    split = {side: [str(row["participant_id"]) for row in there] for side, there in sides.items()}
    validation = sides.get("val", [])
    figures = {name: [row[name] for row in validation if isinstance(row[name], (int, float))] for name in rows[0]}
    means = {k: round(sum(v) / len(v), 4) for k, v in figures.items() if v and not k.startswith("volume_")}
    return {"split": split, "validation": means}
