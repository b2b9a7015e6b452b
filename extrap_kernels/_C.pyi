"""Native kernels of extrap_kernels."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, TypedDict

from torch import Tensor
from typing_extensions import Unpack

class Shard:
    """Where a part of a tensor lies in the whole; see :class:`extrap_kernels.shards.Shard`."""

    def __init__(self, *, offset: int, extent: int, stride: int, numel: int, rows: int) -> None: ...

class _Tensors(TypedDict):
    """What every plan is made of."""

    params: list[Tensor]
    dense_params: list[Tensor]
    has_base: bool
    base_dtype: str
    recovers_base: bool
    buffers: tuple[str, ...]
    buffer_formats: tuple[str, ...]
    grad_dtype: str
    indices: Sequence[int]
    names: Sequence[str]
    shards: Sequence[Shard]

class _Bucket:
    """What all plans have in common: the tensors of one bucket, bound anew in each step."""

    def bind(
        self, states: list[Optional[dict[str, Tensor]]], local_gradients: Mapping[Tensor, Tensor]
    ) -> Optional[list[tuple[int, str]]]:
        """Read and hold the tensors of this step; entries without a gradient are left out of it.

        None if a parameter has changed since the plan was made. Otherwise what is still needed: ``(i, "state")``,
        create or repair the state of entry ``i`` and bind again; ``(i, "gradient")`` or ``(i, "local")``, supply a
        copy.
        """

    def gradient(self, i: int, is_local: bool) -> Any:
        """Return the gradient that was found for entry ``i``."""

    def set_gradient(self, i: int, is_local: bool, gradient: Tensor) -> None:
        """Supply a gradient in the layout of the parameter and in the dtype that gradients are read in."""

    def active(self) -> list[int]:
        """Return the bound entries that have a gradient."""

    def skips(self) -> bool:
        """Whether an entry has no gradient."""

    def release(self) -> None:
        """Let go of the tensors of this step."""

class CpuPlan(_Bucket):
    """The tensors of one bucket, stepped on the CPU. Raises ValueError if they do not fit each other."""

    def __init__(self, *, rule: str, **tensors: Unpack[_Tensors]) -> None: ...
    def run(self, row: bytes, measured: bool, threads: int) -> None:
        """Step the bound tensors and release them; ``measured``: after :meth:`square_sums`."""

    def square_sums(self, row: bytes, threads: int) -> memoryview:
        """Return what run() will make norms of, float64, to be changed in place where other processes hold parts.

        For a rule that needs norms, the sum of squares of each base iterate, then of each gradient or update; then, for
        a noise scale that needs them, of each row of each base iterate.
        """

    def direction_square_sum(self, row: bytes, threads: int) -> float:
        """Return the sum of squares of what run() will extrapolate along; of a rule with norms, along momentum only."""

    def gradient_square_sum(self, threads: int) -> float:
        """Return the sum of squares of the gradients as they are: neither unscaled nor clipped."""

class AddressPlan(_Bucket):
    """The tensors of one bucket, for kernels that Python launches. Raises ValueError if they do not fit each other."""

    def __init__(self, **tensors: Unpack[_Tensors]) -> None: ...
    def write_rows(self, table: array[int], first: int, width: int) -> None:
        """Write where the bound tensors lie, a row of int64 for each, ``width`` cells apart, from cell ``first`` on.

        Addresses of the step count, the parameter, the base iterate, the gradient and the local gradient; whether all
        but the first are multiples of 16; addresses of the buffers. An entry that is left out has 0 for its gradient.
        """

class CudaPlan(_Bucket):
    """The tensors of one bucket, stepped on a CUDA device, or by the same code emulated on the host (CPU tensors).

    Raises ValueError if they do not fit each other, RuntimeError if this build has no CUDA kernels.
    """

    def __init__(self, *, rule: str, emulated: bool, **tensors: Unpack[_Tensors]) -> None: ...
    def scratch_sizes(self, row: bytes) -> tuple[int, int]:
        """Float64 numbers and int32 counters, at first 0, that a step needs; to be asked before each step."""

    def use_scratch(self, doubles: int, counters: int) -> None:
        """Where they are."""

    def norm_sums(self, row: bytes) -> tuple[int, int]:
        """Of sharded tensors: from and up to which of the doubles measure() leaves sums for norms."""

    def row_sums(self, row: bytes) -> tuple[int, int]:
        """Of sharded tensors: from and up to which of the doubles measure() leaves sums for rms."""

    def row_numels(self, row: bytes) -> list[float]:
        """How many elements each of the latter is the sum of in the whole tensors."""

    def measure(self, row: bytes, device_scalars: Mapping[str, Tensor], stream: int) -> None:
        """Take the norms and the rms that the step needs."""

    def step(self, row: bytes, device_scalars: Mapping[str, Tensor], found_inf: Optional[Tensor], stream: int) -> None:
        """Step the bound tensors and release them; after measure()."""

    def add_direction_square_sum(
        self, row: bytes, device_scalars: Mapping[str, Tensor], total: int, stream: int
    ) -> None:
        """Add the squares of what step() will extrapolate along to a number, as below; as in :class:`CpuPlan`."""

    def add_gradient_square_sum(self, total: int, stream: int) -> None:
        """Add the squares of the gradients as they are to the float64 number at an address."""

class StateReader:
    """Reads the state of every parameter of an optimizer; see :mod:`extrap_kernels.backends.state_reader`."""

    def __init__(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> None: ...
    def read(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> Optional[list[Any]]:
        """Return the state of each parameter, or None if others are there."""

def scalars() -> list[tuple[str, str]]:
    """Return name and type of each scalar of a launch, in the order of a row."""

def choices() -> dict[str, list[str]]:
    """Return the names of each scalar that is one of several, in the order of their codes."""

def rules() -> list[tuple[str, list[bool], Optional[str], bool]]:
    """Return name, signs of the buffers, norm, and whether it decays weights itself, of each variant of a rule."""

cuda_built: bool

# Architectures that there is machine code for (90 is compute capability 9.0); for the last one there is PTX, too.
cuda_archs: list[int]

# Of the compiler and the runtime, as "13.0"; None without CUDA.
cuda_version: Optional[str]

def cuda_problem() -> Optional[str]:
    """Return why no CUDA device can be used, or None."""

def cuda_launches(buffers: int, numels: Sequence[int]) -> int:
    """Return the launches of a step without noise on tensors of these sizes, under a rule with so many buffers."""

def instruction_sets() -> list[str]:
    """Instruction sets that can run here, best first."""

def instruction_set() -> str:
    """Return the instruction set in use."""

def select_instruction_set(name: str) -> None:
    """Use another of instruction_sets(); ValueError for any other name."""

def reads_by_stable_interface() -> bool:
    """Whether tensors are read by torch's stable C interface."""

class testing:
    """Instruments of the tests."""

    emulation_built: bool
    chunk: int

    @staticmethod
    def recorded_accesses(action: Callable[[], object]) -> list[tuple[int, int, bool, int]]:
        """Return the memory accesses of emulated kernels that ``action`` runs.

        Each has its address, its bytes, whether it stores, and its thread. Threads 32 k to 32 k + 31 are a warp; each
        phase of each block has numbers of its own.
        """

    @staticmethod
    def emulated_launches() -> int:
        """Return how many launches were emulated since the last call."""

    @staticmethod
    def emulate_tail(units: int) -> None:
        """Emulate only so many chunks, the last ones of each launch; 0: all."""

    @staticmethod
    def read_by_stable_interface(use: bool) -> None:
        """Read tensors by torch's stable C interface where it can be used, or by their attributes."""

    @staticmethod
    def trace_step(row: bytes, **case: Any) -> list[Any]:
        """Return the operations of one step of one element, for each outcome of its comparisons."""

    @staticmethod
    def trace_words(what: str, row: bytes, index: int, step: float) -> list[Any]:
        """Return the operations that make noise or random bits of words."""
