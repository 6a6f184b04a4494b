"""Device and arithmetic, chosen for the machine."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from cortexgen.errors import UserError

Precision = Literal["auto", "bf16", "32"]


def native_bfloat16() -> bool:
    """Whether bfloat16 is fast here: a GPU that has it, or a CPU with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU, else the CPU.

    Raises:
        UserError: if there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name}: not here ({str(error).splitlines()[0]})") from None
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """The context that a network runs in: bfloat16 where that is asked for or, with "auto", fast."""
    fast = native_bfloat16() if device.type in ("cpu", "cuda") else False
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and fast))
