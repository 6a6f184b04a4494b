"""Whether a linear classifier tells two sets of brains apart."""

import torch
from torch import Tensor

FOLDS = 5
PENALTY = 0.1  # of the squared weights, where a row of features has a squared norm of 1


def told_apart(real: Tensor, synthetic: Tensor, folds: int = FOLDS, penalty: float = PENALTY) -> float:
    """Cross-validated balanced accuracy of a ridge classifier; about .5 where two sets are of one kind, 1 at best.

    Arguments:
        real, synthetic: features, `[N, F]` and `[M, F]`.
    """
    return balanced_accuracy(*decisions(real, synthetic, folds, penalty))


def told_apart_auc(real: Tensor, synthetic: Tensor, folds: int = FOLDS, penalty: float = PENALTY) -> float:
    """The area under the curve of the classifier of `told_apart`."""
    return area_under_curve(*decisions(real, synthetic, folds, penalty))


def balanced_accuracy(real: Tensor, synthetic: Tensor) -> float:
    """Mean of the shares of real scores above 0 and of synthetic ones that are not; NaN if one is."""
    if real.isnan().any() or synthetic.isnan().any():
        return float("nan")
    return float(((real > 0).double().mean() + (synthetic <= 0).double().mean()) / 2)


def area_under_curve(real: Tensor, synthetic: Tensor) -> float:
    """How often a real brain has a higher score than a synthetic one, ties counted half; NaN if a score is.

    It is the area under the receiver operating characteristic (Hanley and McNeil, Radiology 1982).
    """
    if real.isnan().any() or synthetic.isnan().any():
        return float("nan")
    difference = real[:, None] - synthetic[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


def decisions(real: Tensor, synthetic: Tensor, folds: int = FOLDS, penalty: float = PENALTY) -> tuple[Tensor, Tensor]:
    """What a ridge classifier of the other folds says of each row, `[N]` and `[M]`: above 0 for real; NaN of too few.

    Features are standardized over both sets. With kernel `K = x xᵀ / F + 1`, classes y = ±1 and weights w that give
    both sides one sum, `(K + penalty / w) a = y` on the rows of the other folds, and the sign of `K a` decides (kernel
    ridge regression, Saunders et al., ICML 1998). With `G` the inverse of that matrix for all rows, the answer for a
    fold t is `y_t - (G_tt)⁻¹ (G y)_t`: one inverse serves every fold. Rows that are equal, as a bootstrap has them, are
    in one fold, so that none is recognized.

    Arguments:
        real, synthetic: features, `[N, F]` and `[M, F]`.
    """
    x = torch.cat([real, synthetic]).double().flatten(1)
    y = torch.cat([torch.ones(len(real)), -torch.ones(len(synthetic))]).double()
    spread = x.std(dim=0)
    x = ((x - x.mean(dim=0)) / spread.clamp(min=1e-9))[:, spread > 1e-9]
    kernel = x @ x.T / max(1, x.shape[1]) + 1
    weight = torch.where(y > 0, len(y) / (2 * len(real)), len(y) / (2 * len(synthetic)))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel + torch.diag(penalty / weight)))
    dual, fold = inverse @ y, _folds(x, y, folds)
    answer = torch.full_like(y, torch.nan)
    for k in range(folds):
        test = torch.nonzero(fold == k).flatten()
        if len(test) and len(y[fold != k].unique()) == 2:
            answer[test] = y[test] - torch.linalg.solve(inverse[test][:, test], dual[test])
    return answer[y > 0], answer[y < 0]


def _folds(x: Tensor, y: Tensor, folds: int) -> Tensor:
    """The fold of each row: those of a side take turns, in an order without meaning, and equal ones are together."""
    out = torch.empty(len(y), dtype=torch.long)
    for side in (y > 0, y < 0):
        _, same = torch.unique(x[side], dim=0, return_inverse=True)
        order = torch.randperm(int(same.max()) + 1, generator=torch.Generator().manual_seed(0))
        out[side] = order[same] % folds
    return out
