"""What the network of features says of people that it hasn't seen, beside a ridge regression on regional volumes.

    cortexgen register '[ds002748,ixi]' REGISTERED --refine 20
    python tests/benchmarks/features.py ds002748,ixi REGISTERED --held-out '*0,*5' --out measured.tsv

The peer, scikit-learn's ridge regression (its penalty cross-validated; for sex, logistic regression), learns age and
sex of the people that aren't held out from the logarithms of the volumes that registration found: it is told what the
network must see.
"""

import argparse
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.evaluation.table import Table
from cortexgen.evaluation.trained import on_grid
from cortexgen.io import read_volume
from cortexgen.io.bids import Row, derivative, write_tsv
from cortexgen.weights import load_features


def people(cohorts: list[Path], registered: Path, weights: str | None) -> list[Row]:
    """Of each person cohort, covariates, logarithms of volumes, and what the network says."""
    module, template, rows = load_features(weights), load_template(), list[Row]()
    for cohort in cohorts:
        for scan in tqdm(read_cohort(cohort), desc=cohort.name, unit="scan", disable=None):
            warped = derivative(registered, scan.name, "dseg", desc="warped")
            if not warped.is_file() or None in (scan.covariates.get("age"), scan.covariates.get("sex")):
                continue
            labels, place = read_volume(warped, labels=True)
            counts = np.bincount(labels.numpy().ravel(), minlength=len(template.classes))[1:]
            image, grid = read_volume(scan.image)
            _, seen = module.seen(on_grid(normalize(image, scan.image), grid, module.grid), template)
            volumes = np.log(np.maximum(counts * place.voxel_volume / 1000, 0.01))
            row = {"cohort": cohort.name, "name": scan.name, "age": scan.covariates["age"]}
            found = np.log([seen[c] for c in template.classes[1:]])
            rows.append(row | {"sex": scan.covariates["sex"], "volumes": volumes, "seen": seen, "found": found})
    return rows


def compared(rows: list[Row], held_out: list[str]) -> list[Row]:
    """A row a cohort, and one for both: errors of age and shares of sexes told right, by the network and its peer."""
    new = [r for r in rows if any(fnmatch(str(r["name"]), pattern) for pattern in held_out)]
    old = [r for r in rows if r not in new] if len(new) < len(rows) else []
    x, y = (np.stack([r["volumes"] for r in side]) for side in (old, new))
    ages, sexes = (np.array([r[k] for r in old]) for k in ("age", "sex"))
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 25))).fit(x, ages)
    logistic = make_pipeline(StandardScaler(), LogisticRegressionCV(max_iter=2000)).fit(x, sexes)
    said = ridge.predict(y), logistic.predict(y)
    out = list[Row]()
    for cohort in (*dict.fromkeys(r["cohort"] for r in new), "both"):
        which = np.array([cohort in (r["cohort"], "both") for r in new])
        part = [r for r, there in zip(new, which, strict=True) if there]
        age, seen = np.array([float(r["age"]) for r in part]), np.array([r["seen"]["age"] for r in part])
        male = np.array([r["seen"]["sex"] > 0.5 for r in part])
        true, found = (np.stack([r[k] for r in part]) for k in ("volumes", "found"))
        residual = ((found - true) ** 2).sum(axis=0) / ((true - x.mean(axis=0)) ** 2).sum(axis=0)
        out.append(
            {
                "cohort": cohort,
                "n": len(part),
                "age error": np.abs(seen - age).mean(),
                "age error, ridge": np.abs(said[0][which] - age).mean(),
                "age error, mean age": np.abs(ages.mean() - age).mean(),
                "age r": np.corrcoef(seen, age)[0, 1],
                "sex right": (male == np.array([r["sex"] == "M" for r in part])).mean(),
                "sex right, logistic": (said[1][which] == np.array([r["sex"] for r in part])).mean(),
                "volumes r²": float(np.mean(1 - residual)),
            }
        )
    return [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in out]


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", type=lambda text: [Path(p) for p in text.split(",")])
    parser.add_argument("registered", type=Path)
    parser.add_argument("--weights", help="other weights than the package's")
    parser.add_argument("--held-out", default="*0,*5", help="patterns of the names of people not learned from")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with torch.inference_mode():
        rows = compared(people(given.cohorts, given.registered, given.weights), given.held_out.split(","))
    print(Table(rows).to_markdown())
    if given.out:
        write_tsv(given.out, rows)


if __name__ == "__main__":
    main()
