"""Two sets of brains that are compared: one row each."""

from torch import Tensor

from cortexgen.errors import UserError

VOLUMES = "volumes [N, K] and [M, K]"


def enough(real: int, synthetic: int, what: str, least: int = 2) -> None:
    """See that there are `least` brains of each kind.

    Raises:
        UserError: if there are fewer.
    """
    if min(real, synthetic) < least:
        raise UserError(f"{what} needs {least} or more brains of each kind, got {real} and {synthetic}")


def two_sets(
    real: Tensor, synthetic: Tensor, what: str, least: int = 2, rows: str = "features [N, F] and [M, F]"
) -> tuple[Tensor, Tensor]:
    """Both sets in float64.

    Raises:
        ValueError: if they are not such rows.
        UserError: if there are fewer than `least` of a kind.
    """
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"expected {rows}, got {tuple(real.shape)} and {tuple(synthetic.shape)}")
    enough(len(real), len(synthetic), what, least)
    return real.double(), synthetic.double()
