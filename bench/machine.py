"""Describes the machine that the numbers come from."""

from __future__ import annotations

import platform

import torch

from extrap_kernels import machine


def describe(device: torch.device) -> dict[str, str]:
    """Return the device that is measured, the processor beside it, and versions."""
    return {
        **machine.describe(torch.device("cpu")),
        **machine.describe(device),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.system(),
    }
