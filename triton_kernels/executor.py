"""Steps a bucket by Triton's kernels: tensors that share a device, a dtype and a gradient dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional

import torch
import triton
from torch import Tensor

from extrap_kernels import capture
from extrap_kernels.backends.dense_copies import DenseCopies
from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.launch import Launch
from extrap_kernels.rules import RuleSpec
from extrap_kernels.state.layout import State, StateLayout
from extrap_kernels.triton_kernels import is_interpreted, variants
from extrap_kernels.triton_kernels.binding import Addresses, fits, have_signatures, is_plain, signature
from extrap_kernels.triton_kernels.kernels.table import MAX_BUFFERS, TensorRow
from extrap_kernels.triton_kernels.tables import (
    LaunchTable,
    NoiseRows,
    Spread,
    Sums,
    chunk_length,
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
    plain = _dtype_name(layout.base_dtype)
    stored = {buffer.signed: _dtype_name(layout.dtype_of(buffer.name)) for buffer in rule.buffers}
    return Formats(_dtype_name(param), _dtype_name(grad), plain, stored.get(True, plain), stored.get(False, plain))


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
        self._copies = DenseCopies(entries, grad_dtype)
        params = self._copies.dense_params
        self._formats = _formats(self._rule, layout, params[0].dtype, grad_dtype)
        step = signature(torch.empty((), dtype=torch.float32, device=self.device))
        # Of the parameter, the gradient, the step count and the rest of the state of each entry.
        self._signatures = [
            [
                signature(entry.param),
                signature(dense, grad_dtype),
                step,
                *(signature(dense, layout.dtype_of(name)) for name in layout.names),
            ]
            for entry, dense in zip(entries, params)
        ]
        self._state_names = ("step", *layout.names)
        self._addresses = Addresses(len(entries))
        # Of the tensors of an entry, in the order of their columns in the table.
        names = ("step", "the parameter", "base", "the gradient", "the local gradient", *layout.buffers)
        self._names = [[f"{name} of {entry.name}" for name in names] for entry in entries]
        self._held: list[Any] = []
        self._bound: list[int] = []
        self._square_sums: Optional[Tensor] = None
        with _device_guard(self.device):
            self._make_tables(params)

    def _make_tables(self, params: Sequence[Tensor]) -> None:
        self._tiling = _tiling(params, self.device)
        numels = [real_numel(param) for param in params]
        self._chunk_length = chunk_length(numels, self._tiling.chunk)
        chunk_rows = chunks(numels, self._chunk_length)
        counts = [0] * len(params)
        for tensor, _ in chunk_rows:
            counts[tensor] += 1
        rows = [TensorRow(*sizes, *[0] * 6) for sizes in zip(numels, counts)]
        self._programs = len(chunk_rows)
        self._table = LaunchTable(rows, self.device)
        self._chunks = device_table(chunk_rows, self.device, torch.int32)
        self._counters = torch.zeros(len(params), dtype=torch.int32, device=self.device)
        self._whole_tensors = [(i, 0, Spread(numel, max(1, numel), 1)) for i, numel in enumerate(numels)]
        self._gradient_sums: Optional[Sums] = None
        self._trust_sums: Optional[Sums] = None
        self._noise_rows: dict[str, NoiseRows] = {}

    # The tensors

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """Read all tensors of this step; see :class:`extrap_kernels.backends.executor.Executor`."""
        self._held, self._bound, incomplete = [], [], []
        self._table.begin()
        # All of them first: a subclass may compute its gradient, by code that could change other tensors.
        gradients = [entry.param.grad for entry in self._entries]
        for i, (entry, gradient) in enumerate(zip(self._entries, gradients)):
            if gradient is None:
                if not fits(entry.param, self._signatures[i][0]):
                    return None
                self._table.skip(i)
                self._addresses.forget(i)
                continue
            known = states[self._entries[i].index] or {}
            state = [known.get(name) for name in self._state_names]
            has_base = "base" in known
            local = local_gradients.get(entry.param) if local_gradients else None
            if has_base is not self._layout.has_base or not self._is_as_expected(i, gradient, state):
                if not self._param_fits(i):
                    return None
                gradient = self._readable(i, gradient)
                if gradient is None:
                    return None
                if has_base is not self._layout.has_base or not self._state_fits(i, state):
                    incomplete.append(i)
                    continue
            if local is not None:
                local = self._readable(i, local, is_local=True)
                if local is None:
                    return None
            self._bind_entry(i, gradient, local, state)
        return incomplete

    def _bind_entry(self, i: int, gradient: Tensor, local: Optional[Tensor], state: Sequence[Any]) -> None:
        dense = self._copies.dense_params[i]
        step, *stored = state
        base, *buffers = stored if self._layout.has_base else (dense, *stored)
        tensors = (step, dense, base, gradient, local, *buffers)
        self._held.append(tensors)
        self._bound.append(i)
        addresses = self._addresses.update(i, self._names[i], tensors)
        if addresses is not None:
            self._table.set_addresses(i, addresses)

    def _is_as_expected(self, i: int, gradient: Tensor, state: Sequence[Optional[Tensor]]) -> bool:
        """Whether all tensors of an entry can be walked as they are: quick; where it is False, they may fit yet."""
        entry = self._entries[i]
        if gradient.layout is not torch.strided or any([tensor is None for tensor in state]):
            return False
        tensors: list[Any] = [entry.param, gradient, *state]
        return have_signatures(tensors, self._signatures[i]) and is_plain(entry.param) and is_plain(gradient)

    def _param_fits(self, i: int) -> bool:
        param = self._entries[i].param
        return fits(param, self._signatures[i][0]) and (param is not self._copies.dense_params[i] or is_plain(param))

    def _state_fits(self, i: int, state: Sequence[Optional[Tensor]]) -> bool:
        return all([t is not None and fits(t, wanted) for t, wanted in zip(state, self._signatures[i][2:])])

    def _readable(self, i: int, gradient: Tensor, *, is_local: bool = False) -> Optional[Tensor]:
        """Return a gradient as a kernel can walk it, a copy if need be; None if it no longer fits the bucket."""
        if fits(gradient, self._signatures[i][1]) and is_plain(gradient):
            return gradient
        return self._copies.to_layout(i, gradient, is_local=is_local)

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
        sharded = launch.noise is not None and self._entries[0].shard is not None
        variant = variants.Step(self._rule, self._formats, launch.phase, launch.noise, sharded)
        rows = self._rows_of_noise(launch)
        tables = (self._table.scalars, self._table.tensors, self._chunks, self._counters, rows.table)
        self._launch(variant, self._programs, *tables, *self._norms(launch, rows), self._chunk_length)
        self._copies.put_back(self._bound)
        if capture.is_capturing(self.device):
            capture.keep(*tables, self._table, self._gradient_sums, self._trust_sums, rows, self._copies.own)
        self._held, self._bound = [], []
