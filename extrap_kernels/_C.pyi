"""Native kernels of extrap_kernels."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from torch import Tensor

class Plan:
    """The tensors of one bucket (one rule and dtype combination), validated once and stepped many times.

    Raises ValueError where the tensors do not fit each other.
    """

    def __init__(
        self,
        *,
        rule: str,
        params: list[Tensor],
        targets: list[Tensor],
        states: list[dict[str, Tensor]],
        state_names: tuple[str, ...],
        indices: Sequence[int],
        gradient_like_param: bool,
    ) -> None: ...
    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> Optional[list[tuple[int, bool]]]:
        """Take in the gradients of this step.

        None if the plan no longer fits the parameters and their state; otherwise (i, is_local) for each gradient that
        set_gradient() must supply in the layout of its parameter and the dtype of the bucket.
        """

    def set_gradient(self, i: int, is_local: bool, gradient: Tensor) -> None: ...
    def run(
        self, group: Mapping[str, Any], key: int, correct: bool, grad_scale: float, clip: float, threads: int
    ) -> None:
        """One step of all tensors under the options of a param group."""

    def gradient_square_sum(self, threads: int) -> float:
        """Sum of squares of the gradients as they are: neither unscaled nor clipped."""

class StateSnapshot:
    """The objects that an optimizer's state consists of, to see whether one was exchanged."""

    def __init__(self, state: dict[Tensor, Any]) -> None: ...
    def matches(self, state: dict[Tensor, Any]) -> bool:
        """Whether ``state`` still consists of the same objects in the same order."""

def instruction_sets() -> list[str]:
    """Instruction sets that can run here, best first."""

def instruction_set() -> str:
    """Return the instruction set in use."""

def select_instruction_set(name: str) -> None:
    """Use another of instruction_sets(); ValueError for any other name."""

def exchange_interface() -> bool:
    """Whether tensors are read by torch's C exchange interface."""

def use_exchange_interface(use: bool) -> None:
    """Read tensors by it where it is there, or not."""
