"""How much memory is left."""

from pathlib import Path

import torch

from cortexgen.io.grid import memory


def free_memory(device: torch.device) -> float:
    """Bytes that a computation on a device may take now; all of a machine's where it doesn't say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return memory()
