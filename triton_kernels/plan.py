"""The tables of a bucket, made on the host: which program works on what, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

import torch
from extrap_kernels.triton_kernels.table import Chunk, NoiseRow, Piece
from torch import Tensor

from extrap_kernels.shards import Shard

# Vector accesses need whole groups of this many elements; what is left over is a chunk of its own.
VECTOR = 8


class Spread(NamedTuple):
    """How the elements of a tensor are spread over rows: element ``i`` lies in row ``i // stride % rows``."""

    numel: int
    stride: int
    rows: int


def spans(numel: int, length: int) -> list[tuple[int, int]]:
    """Cut ``numel`` elements into spans of ``length``; the last, shorter than a vector, starts where vectors end."""
    whole = numel - numel % VECTOR
    cuts = [(begin, min(begin + length, whole)) for begin in range(0, whole, length)]
    return cuts + [(whole, numel)] if whole < numel else cuts


def chunks(numels: Sequence[int], length: int) -> list[Chunk]:
    """Return the chunks of a step; at least one for each tensor, since a step advances the count of empty ones, too."""
    return [Chunk(i, *span) for i, numel in enumerate(numels) for span in spans(numel, length) or [(0, 0)]]


def real_numel(tensor: Tensor) -> int:
    """Return how many real numbers a tensor has."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def device_table(rows: Iterable[Sequence[int]], device: torch.device) -> Tensor:
    """Return an int64 table on the device."""
    return torch.tensor([list(row) for row in rows], dtype=torch.int64, device=device)


class PinnedTable:
    """An int64 table on the device that changes now and then, without waiting for the device.

    Args:
        shape: rows and columns.
        device: where the kernels are.

    Attributes:
        on_device: the table.

    Each version is copied from pinned memory of its own, which PyTorch's allocator gives to nobody else while the copy
    is under way. A CUDA graph records a copy of its own with every step, so that a replay finds the pointers that it
    was recorded with, whatever ran in between; its pinned memory is kept.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.on_device = torch.zeros(shape, dtype=torch.int64, device=device)
        self._pinned = device.type == "cuda"
        self._rows: Optional[list[tuple[int, ...]]] = None
        self._recorded: list[tuple[list[tuple[int, ...]], Tensor]] = []
        # Pinned memory cannot be had while a graph is recorded.
        self._reserve: Optional[Tensor] = self._host()

    def _host(self) -> Tensor:
        return torch.empty(self.on_device.shape, dtype=torch.int64, pin_memory=self._pinned)

    def write(self, rows: list[tuple[int, ...]]) -> None:
        """Make the table hold ``rows``; nothing is copied if it does already.

        Raises:
            RuntimeError: other gradients than last time in a graph, with no step outside of one since.
        """
        if self._pinned and torch.cuda.is_current_stream_capturing():
            self.on_device.copy_(self._recorded_source(rows), non_blocking=True)
        elif self._recorded or rows != self._rows:
            self._rows = rows
            self._reserve = self._host() if self._reserve is None else self._reserve
            self.on_device.copy_(self._host().copy_(torch.tensor(rows)), non_blocking=True)

    def _recorded_source(self, rows: list[tuple[int, ...]]) -> Tensor:
        for known, source in self._recorded:
            if known == rows:
                return source
        if self._reserve is None:
            raise RuntimeError(
                "a second CUDA graph records step() with other gradients than the first; call step() once outside of a "
                "graph in between"
            )
        source, self._reserve = self._reserve.copy_(torch.tensor(rows)), None
        self._recorded.append((rows, source))
        return source


class Sums:
    """Sums over groups of rows, each of them cut into pieces, one for each program.

    Args:
        groups: for each group the rows in it, as (tensor, row, spread).
        length: most elements of a piece.
        device: where the kernels are.
        results: numbers that a program and a group result in.

    Attributes:
        programs: number of pieces.
        tables: arguments of a kernel: pieces, partial results and counters.
        results: float64, ``results`` of them for each group; zeros where no kernel wrote.
    """

    def __init__(
        self, groups: Sequence[Sequence[tuple[int, int, Spread]]], length: int, device: torch.device, results: int = 1
    ) -> None:
        pieces: list[Piece] = []
        for group, rows in enumerate(groups):
            first = len(pieces)
            cut = [
                (tensor, row, spread, span)
                for tensor, row, spread in rows
                for span in spans(spread.numel // spread.rows, length)
            ]
            pieces += [
                Piece(tensor, row, spread.stride, spread.rows, *span, group, first, len(cut))
                for tensor, row, spread, span in cut
            ]
        self.programs = len(pieces)
        self.tables = (
            device_table(pieces, device),
            torch.zeros(results * len(pieces), dtype=torch.float64, device=device),
            torch.zeros(len(groups), dtype=torch.int32, device=device),
        )
        self.results = torch.zeros(results * len(groups), dtype=torch.float64, device=device)


class NoiseRows:
    """The rows that a noise scale takes the rms of, and the positions of the noise.

    Args:
        scale: ``noise_scale`` of the group.
        targets: the parameters, dense.
        shards: where they lie if they are parts of tensors.
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
        targets: Sequence[Tensor],
        shards: Sequence[Optional[Shard]],
        length: int,
        device: torch.device,
    ) -> None:
        rows: list[NoiseRow] = []
        groups: list[list[tuple[int, int, Spread]]] = []
        sizes: list[float] = []
        for i, (target, shard) in enumerate(zip(targets, shards)):
            place = self._place(target, shard)
            if scale not in ("tensor", "filter"):
                rows.append(NoiseRow(0, 1, 1, *place))
            elif scale == "filter" and target.dim() < 2:
                rows.append(NoiseRow(-1, 1, 1, *place))
            else:
                # Of empty parts, too: all processes must have the same sums.
                spread = self._spread(scale, target)
                rows.append(NoiseRow(len(groups), spread.stride, spread.rows, *place))
                groups += [[(i, row, spread)] for row in range(spread.rows)]
                if shard is not None:
                    sizes += [shard.numel / (shard.rows if scale == "filter" else 1)] * spread.rows
        self.table = device_table(rows, device)
        self.sums = Sums(groups, length, device)
        self.sizes = torch.tensor(sizes, dtype=torch.float64, device=device)

    @staticmethod
    def _place(target: Tensor, shard: Optional[Shard]) -> tuple[int, int, int]:
        """Return offset, run and pitch; kernels of whole tensors do not read them."""
        if shard is None:
            return 0, 0, 0
        # A run that never ends is a multiple of 4, as kernels like it.
        return (shard.offset, 1 << 62, 0) if shard.run >= real_numel(target) else (shard.offset, shard.run, shard.pitch)

    @staticmethod
    def _spread(scale: str, target: Tensor) -> Spread:
        numel = real_numel(target)
        if scale == "tensor" or target.shape[0] == 1:
            return Spread(numel, numel, 1)
        return Spread(numel, target.stride(0) * (2 if target.is_complex() else 1), target.shape[0])
