"""Native kernels of extrap_kernels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

from torch import Tensor

class Shard:
    """Where a part of a tensor lies in the whole; see :class:`extrap_kernels.shards.Shard`."""

    def __init__(self, *, offset: int, run: int, pitch: int, numel: int, rows: int) -> None: ...

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
        shards: Sequence[Shard],
    ) -> None: ...
    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> Optional[list[tuple[int, bool]]]:
        """Take in the gradients of this step.

        None if the plan no longer fits the parameters and their state; otherwise (i, is_local) for each gradient that
        set_gradient() must supply in the layout of its parameter and the dtype of the bucket.
        """

    def set_gradient(self, i: int, is_local: bool, gradient: Tensor) -> None: ...
    def run(
        self,
        group: Mapping[str, Any],
        key: int,
        correct: bool,
        grad_scale: float,
        clip: float,
        measured: bool,
        threads: int,
    ) -> None:
        """One step of all tensors under the options of a param group; ``measured``: after :meth:`square_sums`."""

    def square_sums(
        self, group: Mapping[str, Any], correct: bool, grad_scale: float, clip: float, threads: int
    ) -> memoryview:
        """What run() will make norms of, float64, to be changed in place where other processes hold parts of tensors.

        For a rule that needs norms, the sum of squares of each base iterate, then of each gradient or update; then, for
        a noise scale that needs them, of each row of each base iterate.
        """

    def gradient_square_sum(self, threads: int) -> float:
        """Sum of squares of the gradients as they are: neither unscaled nor clipped."""

class DevicePlan:
    """A plan whose steps run on a CUDA device, or by the same code emulated on the host (``emulated``, CPU tensors).

    Raises ValueError where the tensors do not fit each other, RuntimeError where this build has no CUDA kernels.
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
        shards: Sequence[Shard],
        emulated: bool,
    ) -> None: ...
    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> Optional[list[tuple[int, bool]]]:
        """As in Plan."""

    def set_gradient(self, i: int, is_local: bool, gradient: Tensor) -> None: ...
    def scratch_sizes(self, group: Mapping[str, Any]) -> tuple[int, int]:
        """Float64 numbers and int32 counters, at first 0, that the next steps need; to be asked before each step."""

    def use_scratch(self, doubles: int, counters: int) -> None:
        """Where they are."""

    def norm_sums(self) -> tuple[int, int]:
        """Of sharded tensors: from and up to which of the doubles measure() leaves sums for norms."""

    def row_sums(self, group: Mapping[str, Any]) -> tuple[int, int]:
        """Of sharded tensors: from and up to which of the doubles measure() leaves sums for rms."""

    def row_numels(self, group: Mapping[str, Any]) -> list[float]:
        """How many elements each of the latter is the sum of in the whole tensors."""

    def measure(
        self,
        group: Mapping[str, Any],
        grad_scale: Union[float, Tensor],
        clip: Union[float, Tensor],
        correct: bool,
        stream: int,
    ) -> None:
        """Take the norms and the rms that the step needs."""

    def step(
        self,
        group: Mapping[str, Any],
        key: int,
        correct: bool,
        grad_scale: Union[float, Tensor],
        clip: Union[float, Tensor],
        found_inf: Optional[Tensor],
        stream: int,
    ) -> None:
        """One step of all tensors under the options of a param group; after measure()."""

    def add_gradient_square_sum(self, total: int, stream: int) -> None:
        """Add the squares of the gradients as they are to the float64 number at an address."""

class StateSnapshot:
    """The objects that an optimizer's state and the parameters of its groups are, to see whether one was exchanged."""

    def __init__(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> None: ...
    def matches(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> bool:
        """Whether both still consist of the same objects in the same order."""

cuda_built: bool

def cuda_problem() -> Optional[str]:
    """Return why no CUDA device can be used, or None."""

def cuda_launches(buffers: int, numels: Sequence[int]) -> int:
    """Return the launches of a step without noise on tensors of these sizes, under a rule with so many buffers."""

def emulated_launches() -> int:
    """Return how many launches were emulated since the last call."""

def recorded_accesses(action: Callable[[], object]) -> list[tuple[int, int, bool]]:
    """Return the memory accesses of emulated kernels that ``action`` runs: address, bytes, whether it is a store."""

def emulate_tail(units: int) -> None:
    """Emulate only so many chunks, the last ones of each launch; 0: all."""

class VersionCounters:
    """autograd's version counters of some tensors."""

    def __init__(self, tensors: list[Tensor]) -> None: ...
    def increment(self) -> None:
        """Increment them all: what autograd has saved of the tensors is out of date then."""

def instruction_sets() -> list[str]:
    """Instruction sets that can run here, best first."""

def instruction_set() -> str:
    """Return the instruction set in use."""

def select_instruction_set(name: str) -> None:
    """Use another of instruction_sets(); ValueError for any other name."""

def uses_stable_interface() -> bool:
    """Whether tensors are read by torch's stable C interface."""

def use_stable_interface(use: bool) -> None:
    """Read tensors by it where it is there, or not."""
