"""Devices and arithmetic that are offered."""

import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.runner.precision import choose_accelerator, choose_device


def test_apples_gpu_is_not_offered(monkeypatch):
    """It has no float64, and the noise levels are float64."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    assert choose_accelerator() == "cpu" and choose_accelerator("cpu") == "cpu"
    for refused in (lambda: choose_device("mps"), lambda: choose_device("mps:0")):
        with pytest.raises(UserError, match=r"mps.*use cpu"):
            refused()
    for name in ("mps", "gpu"):
        with pytest.raises(UserError, match=r"mps.*use cpu"):
            choose_accelerator(name)


def test_other_machines_choose_as_before(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_accelerator() == "auto" and choose_accelerator("gpu") == "gpu"
