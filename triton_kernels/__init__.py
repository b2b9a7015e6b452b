"""Triton kernels of extrap_kernels; installed as ``extrap_kernels.triton_kernels``. Importing it needs no Triton."""

from __future__ import annotations

import importlib.util
import os
from typing import Optional

import torch


def is_interpreted() -> bool:
    """Whether Triton runs its kernels by its interpreter, on the CPU: TRITON_INTERPRET is set."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def missing_reason() -> Optional[str]:
    """Return why the kernels cannot be run and what to do about it, or None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; run `pip install 'triton>=3.3'`, or use backend='reference'"
    if not is_interpreted() and not torch.cuda.is_available():
        return (
            "PyTorch finds no GPU to run Triton's kernels on; use backend='auto', or set TRITON_INTERPRET=1 before "
            "Python starts to have them interpreted on the CPU, which is for tests"
        )
    return None


def takes_device(device: torch.device) -> bool:
    """Whether the kernels can be run on tensors of ``device``."""
    return device.type == ("cpu" if is_interpreted() else "cuda")
