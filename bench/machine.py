"""Describes the machine that the numbers come from."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from extrap_kernels import _C


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    details = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return f"{fields.get('model name', platform.processor())} ({details})"


def describe(threads: int) -> dict[str, str]:
    """Return processor, instruction set, GPU and versions; ``threads`` is the number that torch uses."""
    return {
        "processor": _processor(),
        "instruction set": _C.instruction_set(),
        "threads": str(threads),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.system(),
    }
