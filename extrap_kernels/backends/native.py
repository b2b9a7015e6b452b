"""What the executors of native kernels share: entries of one device, dtype and gradient dtype, and their plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels.backends.dense_copies import DenseCopies
from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.backends.state_reader import StateReader
from extrap_kernels.launch import Launch
from extrap_kernels.rules import RuleSpec
from extrap_kernels.shards import Shard
from extrap_kernels.state.layout import State, StateLayout

try:
    from extrap_kernels import _C
except ImportError as error:
    _import_error: Optional[ImportError] = error
else:
    _import_error = None


def missing_native_reason() -> Optional[str]:
    """Return why the native kernels cannot be used and what to do about it, or None if they can."""
    if _import_error is None:
        return None
    return (
        f"the native module extrap_kernels._C cannot be imported ({_import_error}); reinstall extrap_kernels with a "
        "C++ compiler and without EXTRAP_NATIVE=off, or use backend='reference'"
    )


def state_reader(state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> Union[_C.StateReader, StateReader]:
    """Return what reads the state of an optimizer's parameters in each step."""
    return (_C.StateReader if _import_error is None else StateReader)(state, param_groups)


def _native_shard(shard: Shard) -> _C.Shard:
    return _C.Shard(offset=shard.offset, extent=shard.extent, stride=shard.stride, numel=shard.numel, rows=shard.rows)


def _format(dtype: torch.dtype) -> str:
    """Return the name of the real numbers that a dtype consists of."""
    return str(dtype.to_real()).removeprefix("torch.")


class NativeExecutor:
    """Binds the tensors of each step; for the arguments see :class:`extrap_kernels.backends.executor.ExecutorType`."""

    _plan: Union[_C.CpuPlan, _C.CudaPlan, _C.AddressPlan]

    def __init__(
        self, spec: RuleSpec, layout: StateLayout, entries: Sequence[ParamEntry], grad_dtype: torch.dtype
    ) -> None:
        self.device = entries[0].param.device
        self._copies = DenseCopies(entries, grad_dtype)
        self._reads_param = not layout.has_base
        self._everything = range(len(entries))
        self._measured = False
        self._make_plan(
            rule=spec.name,
            params=[entry.param for entry in entries],
            dense_params=self._copies.dense_params,
            has_base=layout.has_base,
            base_dtype=_format(layout.dtype_of("base")),
            recovers_base=layout.recovers_base,
            buffers=layout.buffers,
            buffer_formats=tuple(_format(layout.dtype_of(name)) for name in layout.buffers),
            grad_dtype=_format(grad_dtype),
            indices=[entry.index for entry in entries],
            names=[entry.name for entry in entries],
            shards=[_native_shard(entry.shard) for entry in entries if entry.shard is not None],
        )

    def _make_plan(self, **arguments: Any) -> None:
        raise NotImplementedError

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[list[int]]:
        """Read and hold the tensors of this step; see :class:`extrap_kernels.backends.executor.Executor`."""
        self._measured = False
        fit = not self._copies.copied or self._copies.fit()
        requests = self._plan.bind(states, local_gradients) if fit else None
        if requests is None:
            return None
        incomplete = [i for i, what in requests if what == "state"]
        if incomplete:
            return incomplete
        for i, what in requests:
            is_local = what == "local"
            copy = self._copies.to_layout(i, self._plan.gradient(i, is_local), is_local=is_local)
            if copy is None:
                return None
            self._plan.set_gradient(i, is_local, copy)
        return []

    def _fetch(self, launch: Launch) -> None:
        """Bring the dense copies up to date for a launch that reads them, or may leave them as they are."""
        if self._copies.copied and (self._reads_param or launch.adopts or launch.found_inf is not None):
            self._copies.fetch()
