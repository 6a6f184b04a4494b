"""What the parts of stage 1 are worth: every variant trained for the same steps on the same subjects, then measured.

    python tests/benchmarks/ablation.py COHORT OUT --steps 225 --val 05,10,15

Writes OUT/ablation.tsv, a row a variant: mean Dice, SSIM and folded voxels of the validation subjects, after one pass
and after refinement. A run that was interrupted goes on.
"""

import argparse
import json
import time
from pathlib import Path

from cortexgen.cli import run
from cortexgen.io.bids import read_tsv, write_tsv

# No average of weights: it lags behind in short trainings.
CALLBACKS = [{"class_path": "ModelCheckpoint", "init_args": {"save_last": True}}]
PAPER = "--data.crop=brain --data.augmentation=mirror --data.batch_size=1 --trainer.accumulate_grad_batches=1"
VARIANTS: dict[str, tuple[str, str]] = {
    "final preset": ("register.yaml", ""),
    "final, without the diffusion network": ("register.yaml", "--model.code=fixed"),
    "final, predicted noise instead of features": ("register.yaml", "--model.code=eps+fixed"),
    "final, one pass of the head": ("register.yaml", "--model.passes=1"),
    "final, without the force": ("register.yaml", "--model.force=false"),
    "VoxelMorph alone": ("register.yaml", "--config=baselines/voxelmorph.yaml"),
    "paper preset": ("paper/register.yaml", PAPER),
}


def train_and_measure(name: str, cohort: str, out: Path, steps: int, refine: int, val: list[str]) -> dict[str, object]:
    """Train one variant and predict the cohort's validation subjects with it."""
    config, extra = VARIANTS[name]
    folder = out / name.replace(" ", "-").replace(",", "")
    common = ["--config", config, *extra.split(), "--data.root", cohort, "--data.val_subjects", json.dumps(val)]
    common += ["--trainer.default_root_dir", str(folder), "--trainer.max_epochs", "-1", "--wandb", "off"]
    common += ["--trainer.callbacks", json.dumps(CALLBACKS), "--trainer.max_steps", str(steps)]
    common += ["--trainer.check_val_every_n_epoch", "1000000"]
    last = folder / "checkpoints" / "last.ckpt"
    start = time.monotonic()
    if not last.is_file():
        run(["fit", *common])
    row: dict[str, object] = {"variant": name, "steps": steps, "minutes": round((time.monotonic() - start) / 60, 1)}
    for label, number in [("one pass", 0), *([("refined", refine)] if refine else [])]:
        fields = folder / label.replace(" ", "-")
        subset = ["--data.only", "val", "--model.refine", str(number)]
        run(["predict", *common, *subset, "--ckpt_path", str(last), "--output", str(fields)])
        rows = read_tsv(fields / "registration.tsv")
        for key in ("dice_before", "dice", "ssim", "folded_voxels"):
            row[f"{key}, {label}"] = sum(float(r[key]) for r in rows) / len(rows)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=225)
    parser.add_argument("--refine", type=int, default=20)
    parser.add_argument("--val", type=lambda text: text.split(","), required=True)
    parser.add_argument("--only", choices=list(VARIANTS), action="append", help="variants to run; all unless given")
    chosen = parser.parse_args()
    rows = []
    for name in chosen.only or VARIANTS:
        rows.append(train_and_measure(name, chosen.cohort, chosen.out, chosen.steps, chosen.refine, chosen.val))
        write_tsv(chosen.out / "ablation.tsv", rows)
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
