"""The way between an accelerator and the host: copies in both directions, beside what the accelerator computes.

All that CPU offload knows of an accelerator is here, so that it is tested without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Copied(Protocol):
    """Tells when a copy is done."""

    def synchronize(self) -> None:
        """Block the host until then."""


class Link(Protocol):
    """Copies between one accelerator and the host.

    Attributes:
        device: the accelerator.
    """

    device: torch.device

    def host_memory(self, like: Tensor) -> Tensor:
        """Return an uninitialized tensor on the host, with shape, dtype and strides of ``like``, fit for copies."""

    def download(self, source: Tensor, target: Tensor) -> Copied:
        """Begin to copy ``source`` to ``target`` on the host, after all that is computed on the accelerator by now."""

    def upload(self, copies: Sequence[tuple[Tensor, Tensor]]) -> Copied:
        """Begin to copy from the host: pairs of source and target. All that is computed by now comes before.

        The same holds after: what is computed from now on waits for the copies. The host does not wait.
        """


class CudaLink:
    """A link to a CUDA device, by a stream for each direction, which may run at once."""

    def __init__(self, device: torch.device) -> None:
        # With its number, as tensors have it.
        self.device = device if device.index is not None else torch.device("cuda", torch.cuda.current_device())
        self._down, self._up = torch.cuda.Stream(self.device), torch.cuda.Stream(self.device)

    def host_memory(self, like: Tensor) -> Tensor:
        """Return page-locked memory: from other memory, a copy would keep the host waiting."""
        return torch.empty_like(like, device="cpu", requires_grad=False, pin_memory=True)

    def download(self, source: Tensor, target: Tensor) -> Any:
        """See :class:`Link`. The memory of ``source`` is not used again before the copy is done."""
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            target.copy_(source, non_blocking=True)
        source.record_stream(self._down)
        return self._down.record_event()

    def upload(self, copies: Sequence[tuple[Tensor, Tensor]]) -> Any:
        """See :class:`Link`."""
        computing = torch.cuda.current_stream(self.device)
        self._up.wait_stream(computing)
        with torch.cuda.stream(self._up):
            for source, target in copies:
                target.copy_(source, non_blocking=True)
        copied = self._up.record_event()
        computing.wait_event(copied)
        return copied
