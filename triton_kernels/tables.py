"""The tables of a bucket, made on the host: which program works on what, and where everything lies."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.launch import Launch
from extrap_kernels.shards import Shard
from extrap_kernels.triton_kernels.binding import Binding
from extrap_kernels.triton_kernels.kernels.scalars import ADDRESSED, SLOTS
from extrap_kernels.triton_kernels.kernels.table import (
    BUFFER_COLUMN,
    TENSOR_COLUMNS,
    VECTOR,
    Chunk,
    NoiseRow,
    Piece,
    TensorRow,
)

# From here on, a row is what a binding writes.
_STEP_COLUMN = TensorRow._fields.index("step")


class Spread(NamedTuple):
    """How the elements of a tensor are spread over rows: element ``i`` lies in row ``i // stride % rows``."""

    numel: int
    stride: int
    rows: int


def spans(numel: int, length: int) -> list[tuple[int, int]]:
    """Cut ``numel`` elements into spans of ``length``; the last, shorter than a vector, starts where vectors end."""
    whole = numel - numel % VECTOR.value
    cuts = [(begin, min(begin + length, whole)) for begin in range(0, whole, length)]
    return cuts + [(whole, numel)] if whole < numel else cuts


def chunks(numels: Sequence[int], length: int) -> list[Chunk]:
    """Return the chunks of a step; at least one for each tensor, since a step advances the count of empty ones, too."""
    return [Chunk(i, k) for i, numel in enumerate(numels) for k in range(max(1, len(spans(numel, length))))]


def real_numel(tensor: Tensor) -> int:
    """Return how many real numbers a tensor has."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def device_table(rows: Iterable[Sequence[int]], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return a table on the device."""
    return torch.tensor([list(row) for row in rows], dtype=dtype, device=device)


class PinnedTable:
    """An int64 table on the device that changes now and then, without waiting for the device.

    Args:
        length: of the table.
        device: where the kernels are.

    Attributes:
        on_device: the table.

    Each version is copied from pinned memory of its own, which PyTorch's allocator gives to nobody else while the copy
    is under way. A captured graph contains a copy of its own for every launch, so that a replay finds the addresses and
    scalars that it was captured with, whatever ran in between; its pinned memory is kept.
    """

    # Versions that a graph may capture before the next step outside of one. One step has up to four: for the norm of
    # the gradients and for the launch itself, in both halves of an extragradient step.
    SPARE = 4

    def __init__(self, length: int, device: torch.device) -> None:
        self.on_device = torch.zeros(length, dtype=torch.int64, device=device)
        self._pinned = device.type == "cuda"
        self._written: Optional[bytes] = None
        self._captured: dict[bytes, Tensor] = {}
        # Pinned memory cannot be had while a graph is captured.
        self._spare: list[Tensor] = []
        self._refill()

    def _host(self) -> Tensor:
        return torch.empty(self.on_device.shape, dtype=torch.int64, device="cpu", pin_memory=self._pinned)

    def _refill(self) -> None:
        while self._pinned and len(self._spare) < self.SPARE:
            self._spare.append(self._host())

    def write(self, cells: array[int]) -> None:
        """Make the table hold ``cells``; nothing is copied if it does already.

        Raises:
            RuntimeError: a graph captures too many versions, with no step outside of one in between.
        """
        version = cells.tobytes()
        if self._pinned and torch.cuda.is_current_stream_capturing():
            self.on_device.copy_(self._captured_source(version, cells), non_blocking=True)
        elif self._captured or version != self._written:
            self._written = version
            self._refill()
            self.on_device.copy_(self._host().copy_(_tensor(cells)), non_blocking=True)

    def _captured_source(self, version: bytes, cells: array[int]) -> Tensor:
        if version not in self._captured:
            if not self._spare:
                raise RuntimeError(
                    f"CUDA graphs capture step() with more than {self.SPARE} different sets of gradients and options; "
                    "call step() once outside of a graph in between"
                )
            self._captured[version] = self._spare.pop().copy_(_tensor(cells))
        return self._captured[version]


def _tensor(cells: array[int]) -> Tensor:
    return torch.frombuffer(cells, dtype=torch.int64)


class LaunchTable:
    """What changes from step to step, in one table on the device: the scalars of a launch, and a row for each tensor.

    Args:
        rows: of the tensors, without the addresses of their buffers.
        device: where the kernels are.

    Attributes:
        scalars: on the device, laid out as :mod:`extrap_kernels.triton_kernels.kernels.scalars` says.
        tensors: on the device, a :class:`TensorRow` for each tensor.
    """

    def __init__(self, rows: Sequence[TensorRow], device: torch.device) -> None:
        width = TENSOR_COLUMNS.value
        # Rows start at multiples of 16 bytes, as kernels like it.
        self._first = SLOTS + SLOTS % 2
        self._cells = array("q", bytes(8 * (self._first + width * len(rows))))
        self._table = PinnedTable(len(self._cells), device)
        self._is_written = False
        self.scalars, self.tensors = self._table.on_device.split([self._first, width * len(rows)])
        for i, row in enumerate(rows):
            at = self._first + width * i
            self._cells[at : at + BUFFER_COLUMN.value] = array("q", row[: BUFFER_COLUMN.value])

    def begin(self, binding: Binding) -> None:
        """Begin a step on what is bound: the table is copied if it has changed, and always in a captured graph."""
        binding.write_rows(self._cells, self._first + _STEP_COLUMN, TENSOR_COLUMNS.value)
        self._is_written = False

    def set_scalars(self, launch: Launch) -> None:
        """Set the scalars of the launches to come; those on the device must live until they are done."""
        values = array("q", launch.row)
        for name in ADDRESSED:
            scalar = launch.found_inf if name == "found_inf" else launch.on_device.get(name)
            if scalar is None:
                values.extend((0, 0))
                continue
            values.extend((scalar.data_ptr(), int(scalar.dtype == torch.float64)))
        if self._cells[: len(values)] != values:
            self._cells[: len(values)] = values
            self._is_written = False

    def write(self) -> None:
        """Bring the table on the device up to date with what was set: a captured graph then contains the copy, too."""
        if not self._is_written:
            self._table.write(self._cells)
            self._is_written = True


class Sums:
    """Sums over rows of tensors, which are cut into pieces, one for each program.

    Args:
        terms: for each sum the rows that it goes over, as (tensor, row, spread).
        length: most elements of a piece.
        device: where the kernels are.
        results: numbers that a program and a sum result in.

    Attributes:
        programs: number of pieces.
        tables: arguments of a kernel: pieces, partial results and counters.
        results: float64, ``results`` of them for each sum; zeros where no kernel wrote.
    """

    def __init__(
        self, terms: Sequence[Sequence[tuple[int, int, Spread]]], length: int, device: torch.device, results: int = 1
    ) -> None:
        pieces: list[Piece] = []
        for total, rows in enumerate(terms):
            first = len(pieces)
            cut = [
                (tensor, row, spread, span)
                for tensor, row, spread in rows
                for span in spans(spread.numel // spread.rows, length)
            ]
            pieces += [
                Piece(tensor, row, spread.stride, spread.rows, *span, total, first, len(cut))
                for tensor, row, spread, span in cut
            ]
        self.programs = len(pieces)
        self.tables = (
            device_table(pieces, device),
            torch.zeros(results * len(pieces), dtype=torch.float64, device=device),
            torch.zeros(len(terms), dtype=torch.int32, device=device),
        )
        self.results = torch.zeros(results * len(terms), dtype=torch.float64, device=device)


class NoiseRows:
    """The rows that a noise scale takes the rms of, and the positions of the noise.

    Args:
        scale: ``noise_scale`` of the launch.
        params: the parameters, dense.
        entries: of the parameters.
        length: most elements of a piece.
        device: where the kernels are.

    Attributes:
        table: a :class:`NoiseRow` for each parameter.
        sums: of the squares of the base iterates; no pieces for scales that are no rms.
        sizes: float64, how many numbers the row of each sum has in the whole tensor; for parts of tensors only.
    """

    def __init__(
        self,
        scale: str,
        params: Sequence[Tensor],
        entries: Sequence[ParamEntry],
        length: int,
        device: torch.device,
    ) -> None:
        rows: list[NoiseRow] = []
        terms: list[list[tuple[int, int, Spread]]] = []
        sizes: list[float] = []
        for i, (param, entry) in enumerate(zip(params, entries)):
            shard = entry.shard
            place = self._place(param, shard)
            if scale not in ("tensor", "filter"):
                rows.append(NoiseRow(entry.index, 0, 1, 1, *place))
            elif scale == "filter" and param.dim() < 2:
                rows.append(NoiseRow(entry.index, -1, 1, 1, *place))
            else:
                # Of empty parts, too: all processes must have the same sums.
                spread = self._spread(scale, param)
                rows.append(NoiseRow(entry.index, len(terms), spread.stride, spread.rows, *place))
                terms += [[(i, row, spread)] for row in range(spread.rows)]
                if shard is not None:
                    sizes += [shard.numel / (shard.rows if scale == "filter" else 1)] * spread.rows
        self.table = device_table(rows, device)
        self.sums = Sums(terms, length, device)
        self.sizes = torch.tensor(sizes, dtype=torch.float64, device=device)

    @staticmethod
    def _place(param: Tensor, shard: Optional[Shard]) -> tuple[int, int, int]:
        """Return offset, extent and stride; kernels of whole tensors do not read them."""
        if shard is None:
            return 0, 0, 0
        # An extent that never ends is a multiple of 4, as kernels like it.
        return (shard.offset, *((1 << 62, 0) if shard.extent >= real_numel(param) else (shard.extent, shard.stride)))

    @staticmethod
    def _spread(scale: str, param: Tensor) -> Spread:
        numel = real_numel(param)
        if scale == "tensor" or param.shape[0] == 1:
            return Spread(numel, numel, 1)
        return Spread(numel, param.stride(0) * (2 if param.is_complex() else 1), param.shape[0])
