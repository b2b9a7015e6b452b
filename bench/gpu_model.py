"""A model of GPUs: how busy a kernel keeps their issue slots if it moves its bytes at the bandwidth of the data sheet.

Above 1, the slots bind, and not the memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional


class Gpu(NamedTuple):
    """From its data sheet.

    Attributes:
        name: as people call it.
        capability: as 90 for compute capability 9.0.
        bandwidth: bytes per second.
        issue: instructions of a thread per second, of all kinds.
        double: those in double precision.
    """

    name: str
    capability: int
    bandwidth: float
    issue: float
    double: float

    def machine_code(self, archs: Iterable[int]) -> Optional[int]:
        """Return the architecture whose machine code it runs: the newest one of its major version that is not newer."""
        return max((a for a in archs if a // 10 == self.capability // 10 and a <= self.capability), default=None)

    def issue_share(self, moved: float, instructions: float) -> float:
        """Return the busy share of the issue slots, from bytes and instructions of an element."""
        return instructions * self.bandwidth / moved / self.issue

    def double_share(self, moved: float, instructions: float) -> float:
        """Return the busy share of the units of double precision, from bytes and their instructions of an element."""
        return instructions * self.bandwidth / moved / self.double


def _gpu(
    name: str, capability: int, gigabytes: float, multiprocessors: int, gigahertz: float, doubles_a_cycle: int
) -> Gpu:
    cycles = multiprocessors * gigahertz * 1e9
    return Gpu(name, capability, gigabytes * 1e9, 4 * 32 * cycles, doubles_a_cycle * cycles)


GPUS = (_gpu("H100", 90, 3350, 132, 1.98, 64), _gpu("RTX 4090", 89, 1008, 128, 2.52, 2))


def percent(share: float) -> str:
    """Format a share."""
    return f"{100 * share:.0f}%"
