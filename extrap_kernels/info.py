"""``python -m extrap_kernels info``: which backends this installation has, and which one tensors of each device get."""

from __future__ import annotations

import json
import platform
from typing import Any, Optional

import torch

import extrap_kernels
from extrap_kernels import backends, command_line


def facts() -> dict[str, Any]:
    """Return what is printed, made of what JSON has: a backend that is missing has a reason, others None."""
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return {
        "extrap_kernels": extrap_kernels.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "backends": {name: backends.missing_reason(name) for name in backends.BACKENDS},
        "native": _native(),
        "devices": [_device(device) for device in (torch.device("cpu"), *gpus)],
    }


def _native() -> Optional[dict[str, Any]]:
    if backends.missing_reason("cpu") is not None:
        return None
    from extrap_kernels import _C

    return {
        "reads_by_stable_interface": _C.reads_by_stable_interface(),
        "instruction_set": _C.instruction_set(),
        "instruction_sets": _C.instruction_sets(),
        "cuda": {"version": _C.cuda_version, "archs": _C.cuda_archs} if _C.cuda_built else None,
    }


def _device(device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    cuda = backends.missing_reason("cuda", device) if on_gpu else None
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "auto": backends.resolve("auto", device).name,
        # What is missing on every device is in the list of backends.
        "cuda_missing": cuda if cuda != backends.missing_reason("cuda") else None,
    }


def run(*, as_json: bool = False) -> None:
    """Print :func:`facts`, as tables or as JSON."""
    found = facts()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"extrap_kernels {found['extrap_kernels']}, torch {found['torch']}, Python {found['python']}")
    states = ((name, f"not available: {why}" if why else "available") for name, why in found["backends"].items())
    command_line.show(("backend", "state"), states)
    if found["native"] is not None:
        _print_native(found["native"])
    rows = ((d["device"], d["name"], repr(d["auto"]), d["cuda_missing"] or "") for d in found["devices"])
    command_line.show(("device", "", "backend='auto' takes", "not available there: 'cuda'"), rows)


def _print_native(native: dict[str, Any]) -> None:
    stable = native["reads_by_stable_interface"]
    print("tensors are read by " + ("torch's stable C interface" if stable else "their attributes, which is slower"))
    print(f"instruction set {native['instruction_set']} of {', '.join(native['instruction_sets'])}")
    cuda = native["cuda"]
    if cuda is not None:
        print(f"CUDA {cuda['version']} kernels for architectures {cuda['archs']}, the last one in PTX, too")
