"""The registry of backends. Each backend registers itself; ``"auto"`` asks them in the order of registration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import torch

from extrap_kernels.backends.executor import ExecutorType


@dataclass(frozen=True)
class Backend:
    """A backend.

    Attributes:
        name: value of the option ``backend``.
        takes: whether it can step parameters on a device.
        missing_reason: returns why it is not available and the remedy, or None if it is available.
        executor: imports and returns its executor type.
        on_device: whether a step reads nothing on the host; the step count is then on the device of the parameter.
        for_speed: whether its speed is worth measuring.
        automatic: whether ``"auto"`` may choose it.
        missing_on: returns why it cannot step parameters on this one of its devices and the remedy, or None if it can.
    """

    name: str
    takes: Callable[[torch.device], bool]
    missing_reason: Callable[[], Optional[str]]
    executor: Callable[[], ExecutorType]
    on_device: bool = False
    for_speed: bool = True
    automatic: bool = True
    missing_on: Callable[[torch.device], Optional[str]] = lambda device: None


BACKENDS: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Add a backend to the registry."""
    BACKENDS[backend.name] = backend


def missing_reason(name: str, device: Optional[torch.device] = None) -> Optional[str]:
    """Return why a backend is not available, at all or on a device that it takes, and the remedy; None if it is."""
    backend = BACKENDS[name]
    reason = backend.missing_reason()
    return backend.missing_on(device) if reason is None and device is not None else reason


def check_name(name: str) -> None:
    """Raise ValueError for an unknown backend and RuntimeError for one that is not available."""
    if name == "auto":
        return
    if name not in BACKENDS:
        raise ValueError(f"Invalid backend value: {name!r}; choose one of {('auto', *BACKENDS)}")
    reason = missing_reason(name)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} is not available: {reason}")


def resolve(name: str, device: torch.device) -> Backend:
    """Return the backend that steps parameters on ``device``.

    ``"auto"`` means ``cpu`` for CPU tensors if it was built; for tensors on a GPU ``cuda`` if it was built for that
    GPU, else ``triton`` if it is installed; and ``reference`` otherwise. Any other value names the backend itself.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: the backend is not available, or does not support this device.
    """
    check_name(name)
    if name == "auto":
        asked = (b for b in BACKENDS.values() if b.automatic and b.takes(device))
        return next(b for b in asked if missing_reason(b.name, device) is None)
    backend = BACKENDS[name]
    if not backend.takes(device):
        raise RuntimeError(f"backend {name!r} cannot step a parameter on device {device}; use backend='auto'")
    reason = backend.missing_on(device)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} is not available on device {device}: {reason}")
    return backend
