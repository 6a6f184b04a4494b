"""What a network knows, as a number."""

import hashlib

import numpy as np
from torch import nn


def state_hash(module: nn.Module) -> str:
    """sha256 of every parameter and buffer in a module's state, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()
