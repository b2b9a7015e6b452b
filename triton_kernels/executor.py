"""Steps a bucket by Triton's kernels: tensors that share a device, a dtype and a gradient dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional

import torch
import triton
from torch import Tensor

from extrap_kernels import capture
from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.launch import Launch, Phase
from extrap_kernels.rules import RuleSpec
from extrap_kernels.state.layout import State, StateLayout
from extrap_kernels.triton_kernels import is_interpreted, variants
from extrap_kernels.triton_kernels.binding import binding_type
from extrap_kernels.triton_kernels.kernels.table import BUFFER_COLUMN, MAX_BUFFERS, TensorRow
from extrap_kernels.triton_kernels.tables import (
    LaunchTable,
    NoiseRows,
    Spread,
    Sums,
    chunks,
    device_table,
    real_numel,
)
from extrap_kernels.triton_kernels.variants import Formats, Rule, Tiling


def _dtype_name(dtype: torch.dtype) -> str:
    """Return the name of the real numbers that a dtype consists of."""
    return str(dtype.to_real()).removeprefix("torch.")


def _device_guard(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _tiling(params: Sequence[Tensor], device: torch.device) -> Tiling:
    if is_interpreted():
        return variants.interpreter_tiling(max(map(real_numel, params)))
    return variants.compiled_tiling(triton.runtime.driver.active.get_current_target().warp_size)


def _formats(rule: Rule, layout: StateLayout, param: torch.dtype, grad: torch.dtype) -> Formats:
    plain, base = _dtype_name(layout.base_dtype), _dtype_name(layout.dtype_of("base"))
    stored = {buffer.signed: _dtype_name(layout.dtype_of(buffer.name)) for buffer in rule.buffers}
    return Formats(_dtype_name(param), _dtype_name(grad), base, stored.get(True, plain), stored.get(False, plain))


class TritonExecutor:
    """Steps its entries in one launch; rules that scale by norms take one more, and so do noise scales that are an rms.

    For its arguments see :class:`extrap_kernels.backends.executor.ExecutorType`.
    """

    on_device = True

    def __init__(
        self, spec: RuleSpec, layout: StateLayout, entries: Sequence[ParamEntry], grad_dtype: torch.dtype
    ) -> None:
        if len(layout.buffers) > MAX_BUFFERS:
            raise ValueError(
                f"rule {spec.name!r} keeps {len(layout.buffers)} buffers; Triton takes up to {MAX_BUFFERS}"
            )
        self.device = entries[0].param.device
        self._layout, self._entries = layout, entries
        self._rule = Rule.of(spec, layout.buffers)
        self._binding = binding_type()(spec, layout, entries, grad_dtype)
        self._copies = self._binding.copies
        params = self._copies.dense_params
        self._formats = _formats(self._rule, layout, params[0].dtype, grad_dtype)
        self._square_sums: Optional[Tensor] = None
        with _device_guard(self.device):
            self._make_tables(params)

    def _make_tables(self, params: Sequence[Tensor]) -> None:
        self._tiling = _tiling(params, self.device)
        numels = [real_numel(param) for param in params]
        chunk_rows = chunks(numels, self._tiling.chunk)
        counts = [0] * len(params)
        for tensor, _ in chunk_rows:
            counts[tensor] += 1
        rows = [TensorRow(*sizes, *[0] * (BUFFER_COLUMN.value - 2)) for sizes in zip(numels, counts)]
        self._programs = len(chunk_rows)
        self._table = LaunchTable(rows, self.device)
        self._chunks = device_table(chunk_rows, self.device, torch.int32)
        self._counters = torch.zeros(len(params), dtype=torch.int32, device=self.device)
        self._whole_tensors = [(i, 0, Spread(numel, max(1, numel), 1)) for i, numel in enumerate(numels)]
        self._gradient_sums: Optional[Sums] = None
        self._direction_sums: Optional[Sums] = None
        self._trust_sums: Optional[Sums] = None
        self._noise_rows: dict[str, NoiseRows] = {}

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """Read all tensors of this step; see :class:`extrap_kernels.backends.executor.Executor`."""
        incomplete = self._binding.bind(states, local_gradients)
        if incomplete == []:
            self._table.begin(self._binding)
        return incomplete

    # The launches

    def _launch(self, variant: variants.Variant, programs: int, *arguments: Any) -> None:
        with _device_guard(self.device):
            self._table.write()
            variants.launch(variant, programs, self._tiling, *arguments)

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor on the device."""
        if self._gradient_sums is None:
            self._gradient_sums = Sums([self._whole_tensors], self._tiling.piece, self.device)
        sums = self._gradient_sums
        variant = variants.SquareSums(self._formats.grad, "gradients")
        self._launch(variant, sums.programs, self._table.tensors, *sums.tables, total)

    def add_direction_square_sum(self, launch: Launch, total: Tensor) -> None:
        """Add the squares of what the next :meth:`run` extrapolates along to a 0-dim float64 tensor on the device."""
        self._prepare(launch)
        if self._direction_sums is None:
            self._direction_sums = Sums([self._whole_tensors], self._tiling.piece, self.device)
        sums = self._direction_sums
        variant = variants.DirectionSquares.of(self._rule, self._formats, launch.group["extrapolation"])
        self._launch(variant, sums.programs, self._table.scalars, self._table.tensors, *sums.tables, total)

    def _trust_norms(self, launch: Launch) -> Tensor:
        """Return the sums of squares that a rule scales by, in new or old memory."""
        if self._trust_sums is None:
            terms = [[whole] for whole in self._whole_tensors] if self._rule.spec.norm else []
            self._trust_sums = Sums(terms, self._tiling.piece, self.device, results=2)
        norms = self._trust_sums
        if not launch.layer_adaptation:
            return norms.results[:0]
        variant = variants.TrustNorms(self._rule, self._formats)
        arguments = (self._table.scalars, self._table.tensors, *norms.tables, norms.results)
        self._launch(variant, norms.programs, *arguments)
        return norms.results

    def _rows_of_noise(self, launch: Launch) -> NoiseRows:
        """Return the rows that noise is scaled by; none of them has a sum in a step without noise."""
        scale = launch.noise_scale if launch.noise is not None else "absolute"
        if scale not in self._noise_rows:
            rows = NoiseRows(scale, self._copies.dense_params, self._entries, self._tiling.piece, self.device)
            self._noise_rows[scale] = rows
        return self._noise_rows[scale]

    def _over_rows(self, rows: NoiseRows, result: str) -> Tensor:
        """Return ``"rms"`` of each of the rows, or the sums of squares of what is here of ``"rows"``."""
        sums = rows.sums
        variant = variants.SquareSums(self._formats.base, result)
        self._launch(variant, sums.programs, self._table.tensors, *sums.tables, sums.results)
        return sums.results

    def _prepare(self, launch: Launch) -> None:
        """Take in the scalars of the launches to come, and what parameters without a dense memory of their own hold."""
        self._table.set_scalars(launch)
        if launch.adopts or launch.found_inf is not None or not self._layout.has_base:
            self._copies.fetch()

    def square_sums(self, launch: Launch) -> Tensor:
        """Return what the next :meth:`run` makes norms of; what other processes have is to be added to it in place."""
        self._prepare(launch)
        rows = self._over_rows(self._rows_of_noise(launch), "rows")
        # A copy, so that a tensor of which nothing is here still has sums of 0 in the next step.
        self._square_sums = torch.cat([self._trust_norms(launch), rows])
        return self._square_sums

    def _norms(self, launch: Launch, rows: NoiseRows) -> tuple[Tensor, Tensor]:
        """Return the rms of each row and the sums of squares that the rule scales by, of whole tensors."""
        if self._square_sums is None:
            return self._over_rows(rows, "rms"), self._trust_norms(launch)
        of_rows = rows.sizes.numel()
        sums, self._square_sums = self._square_sums, None
        trust_norms, squares = sums.split([sums.numel() - of_rows, of_rows])
        return squares.div_(rows.sizes).sqrt_(), trust_norms

    def run(self, launch: Launch) -> None:
        """Step every parameter that has a gradient."""
        self._prepare(launch)
        by_position = launch.noise is not None or self._rule.rounds(self._formats)
        sharded = by_position and launch.phase is Phase.UPDATE and self._entries[0].shard is not None
        variant = variants.Step(self._rule, self._formats, launch.phase, launch.noise, sharded)
        rows = self._rows_of_noise(launch)
        tables = (self._table.scalars, self._table.tensors, self._chunks, self._counters, rows.table)
        self._launch(variant, self._programs, *tables, *self._norms(launch, rows), self._tiling.chunk)
        self._copies.put_back(self._binding.stepped())
        if capture.is_capturing(self.device):
            sums = (self._gradient_sums, self._direction_sums, self._trust_sums)
            capture.keep(*tables, self._table, *sums, rows, self._copies.own)
        self._binding.release()
