"""The Gaussian prior of fields that do not fit in memory, and those of each part of them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor

from cortexgen.diffusion.prior import GaussianPrior, cosine_transform, low_frequencies

BLOCK = 1 << 25  # numbers that are held at once, 128 MB
NEGLIGIBLE = 1e-9  # of the largest variance


def _blocks(matrix: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """Which columns of a matrix `[n, p]` in a file, and their `[n, width]`."""
    width = max(1, BLOCK // len(matrix))
    for start in range(0, matrix.shape[1], width):
        yield slice(start, start + width), torch.from_numpy(np.array(matrix[:, start : start + width]))


def _principal(gram: Tensor, count: int, trust: float) -> Tensor:
    """What fields with the inner products `[n, n]` are multiplied by to give principal modes, `[K, n]`.

    A mode's squared length is `trust` times its variance.
    """
    kept = min(count, len(gram) - 1)
    variances, vectors = torch.linalg.eigh(gram / len(gram))
    keep = variances[-1:] * NEGLIGIBLE < variances[len(gram) - kept :]
    vectors = vectors[:, len(gram) - kept :][:, keep].flip(1)
    return (trust / len(gram)) ** 0.5 * vectors.T


def fit_priors(
    fields: Iterable[Tensor],
    folds: Sequence[int],
    count: int,
    trust: float = 0.85,
    cutoff: float = 0.25,
    folder: Path | None = None,
) -> list[GaussianPrior]:
    """The prior of centred fields `[C, D, H, W]`, and for each fold of them that of the fields of the others.

    One pass over the fields gives the power of each frequency, fold by fold, and their low frequencies, which wait in
    a file; those give all inner products, and the modes of all priors. Memory: the modes (count + 1 floats for each
    low frequency and prior), some n² doubles, and 128 MB now and then.

    Arguments:
        fields: read once, one at a time.
        folds: of each field, from 0 on; a single fold has no others.
        count: modes at most; fewer where there are fewer fields.
        trust: share of each mode's variance that stays in it; the rest joins the remainder, for what the next subject
            has and these don't.
        cutoff: of the modes' frequencies, in cycles a voxel.
        folder: of the file, which takes 4 bytes for each field and low frequency; the system's temporary one unless
            given.

    Returns:
        The prior of all, then that without fold 0, 1, ...; the total variance of each frequency is the fields'.
    """
    places = torch.as_tensor(folds)
    with TemporaryFile(dir=folder) as file:
        for i, field in enumerate(fields):
            if i == 0:
                low = low_frequencies(field.shape, cutoff)
                power = torch.zeros(int(places.max()) + 1, *field.shape, dtype=torch.float64)
            coefficients = cosine_transform(field)
            power[places[i]] += coefficients.double().square()
            file.write(coefficients.flatten()[low].numpy().tobytes())
        file.flush()
        matrix = np.memmap(file, np.float32, "r", shape=(len(places), int(low.sum())))

    gram = torch.zeros(len(places), len(places), dtype=torch.float64)
    for _, block in _blocks(matrix):
        gram += block @ block.T
    others = [places >= 0] + ([places != fold for fold in range(len(power))] if len(power) > 1 else [])
    weights = []
    for chosen in others:
        part = _principal(gram[chosen][:, chosen], count, trust)
        weights.append(torch.zeros(len(part), len(places)))
        weights[-1][:, chosen] = part.float()
    del gram
    modes = [torch.empty(len(w), matrix.shape[1]) for w in weights]
    for where, block in _blocks(matrix):
        for out, w in zip(modes, weights, strict=True):
            out[:, where] = w @ block
    priors = []
    for fold, (chosen, mode) in enumerate(zip(others, modes, strict=True), start=-1):
        total = sum(p for f, p in enumerate(power) if f != fold)
        priors.append(GaussianPrior.of((total / int(chosen.sum())).float(), mode, cutoff))
    return priors
