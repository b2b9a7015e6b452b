"""What bug reports and benchmarks say of the machine."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch.utils import collect_env

from extrap_kernels.backends.native import missing_native_reason

if missing_native_reason() is None:
    from extrap_kernels import _C


def describe(device: torch.device) -> dict[str, str]:
    """Return what tells one device, and what drives it, from another: figures by their names."""
    native = missing_native_reason() is None
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return {
            "GPU": torch.cuda.get_device_name(device),
            "compute capability": f"{major}.{minor}",
            "driver": collect_env.get_nvidia_driver_version(collect_env.run) or "unknown: nvidia-smi does not say",
            "CUDA": f"{_C.cuda_version if native else None} of the kernels, {torch.version.cuda} of torch",
        }
    return {
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "instruction set": _C.instruction_set() if native else "no native module",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    details = ", ".join(f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    return f"{fields.get('model name', platform.processor())} ({details})"
