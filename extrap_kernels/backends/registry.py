"""Which backends there are. Each registers a description of itself; the order is that in which ``"auto"`` asks them."""

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
        name: what users call it.
        takes: whether it can step parameters on a device.
        missing_reason: returns why it cannot be used here and what to do about it, or None if it can.
        executor: returns its executor type; what only that needs is imported here.
        on_device: whether a step reads nothing on the host; the step count then is on the parameter's device.
        state_dtypes: values of the option ``state_dtype`` that it supports.
        for_speed: whether its speed is worth measuring.
        automatic: whether ``"auto"`` may choose it.
    """

    name: str
    takes: Callable[[torch.device], bool]
    missing_reason: Callable[[], Optional[str]]
    executor: Callable[[], ExecutorType]
    on_device: bool = False
    state_dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    for_speed: bool = True
    automatic: bool = True


BACKENDS: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Make a backend known under its name."""
    BACKENDS[backend.name] = backend


def missing_reason(name: str) -> Optional[str]:
    """Return why a backend cannot be used here and what to do about it, or None if it can."""
    return BACKENDS[name].missing_reason()


def check_name(name: str) -> None:
    """Raise ValueError for an unknown backend and RuntimeError for one that is not there."""
    if name == "auto":
        return
    if name not in BACKENDS:
        raise ValueError(f"Invalid backend value: {name!r}; choose one of {('auto', *BACKENDS)}")
    reason = missing_reason(name)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} is not available: {reason}")


def resolve(name: str, device: torch.device) -> Backend:
    """Return the backend that steps parameters on ``device``.

    ``"auto"``: ``cpu`` for CPU tensors if it was built; for those of a GPU ``cuda`` if it was built, else ``triton`` if
    it is installed; ``reference`` otherwise. Any other value: that backend.

    Raises:
        ValueError: there is no such backend.
        RuntimeError: it cannot be used here, or cannot take tensors of this device.
    """
    check_name(name)
    if name == "auto":
        return next(b for b in BACKENDS.values() if b.automatic and b.takes(device) and b.missing_reason() is None)
    backend = BACKENDS[name]
    if not backend.takes(device):
        raise RuntimeError(f"backend {name!r} cannot step a parameter on device {device}; use backend='auto'")
    return backend
