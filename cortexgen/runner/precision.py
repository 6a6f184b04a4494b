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
    """The device of a name; "auto" is the first CUDA GPU, else the CPU.

    Raises:
        UserError: if there is no such device, or it can't do what is needed.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    _refuse_mps(name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name}: not here ({str(error).splitlines()[0]})") from None
    return device


def _refuse_mps(name: str) -> None:
    """See that a device or accelerator isn't Apple's GPU."""
    if name.startswith("mps"):
        raise UserError(f"device {name}: has no float64, which noise levels and geometry need; use cpu")


def choose_accelerator(name: str = "auto") -> str:
    """Lightning's name of the accelerator to use; where its "auto" would take Apple's GPU it is the CPU.

    Raises:
        UserError: if Apple's GPU is asked for.
    """
    apple = torch.backends.mps.is_available() and not torch.cuda.is_available()
    _refuse_mps("mps" if name == "gpu" and apple else name)
    return "cpu" if name == "auto" and apple else name


def arithmetic_name(device: torch.device, precision: Precision) -> str:
    """What a precision means on a device: "bf16" where that is asked for or, with "auto", fast; else "32"."""
    fast = device.type in ("cpu", "cuda") and native_bfloat16()
    return "bf16" if precision == "bf16" or (precision == "auto" and fast) else "32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """The context that a network runs in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=arithmetic_name(device, precision) == "bf16")
