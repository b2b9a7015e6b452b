"""The tensors of a parameter's state, with their dtypes and strides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels.layout import empty_dense, is_dense
from extrap_kernels.options import extrapolates
from extrap_kernels.rules import RuleSpec
from extrap_kernels.state.formats import STATE_FORMATS, Format

State = dict[str, Tensor]

# From here on, a float32 skips numbers.
_LARGEST_FLOAT32_COUNT = 2**24


def step_count(count: Union[float, Tensor], device: Optional[torch.device]) -> Tensor:
    """Return a step count as kernels take it: 0-dim, float32 on ``device``.

    None: on the host, where it is a float64 if a float32 counts no further.
    """
    dtype = torch.float64 if device is None and float(count) >= _LARGEST_FLOAT32_COUNT else torch.float32
    kept = count.detach() if isinstance(count, Tensor) else torch.tensor(count, dtype=torch.float64, device="cpu")
    return kept.to(device or "cpu", dtype, copy=True).reshape(())


def _is_step_count(step: Tensor, device: Optional[torch.device]) -> bool:
    """Whether ``step`` is as :func:`step_count` would make it."""
    if device is not None:
        return step.device == device and step.dtype == torch.float32
    return step.device.type == "cpu" and (step.dtype == torch.float64 or float(step) < _LARGEST_FLOAT32_COUNT)


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the arithmetic and of the base iterate: double for double parameters, else single."""
    double = dtype in (torch.float64, torch.complex128)
    if dtype.is_complex:
        return torch.complex128 if double else torch.complex64
    return torch.float64 if double else torch.float32


def _needs_base(group: Mapping[str, Any], dtype: torch.dtype) -> bool:
    """Whether ``x`` is not what the parameter itself holds."""
    return extrapolates(group) or dtype != arithmetic_dtype(dtype)


@dataclass(frozen=True)
class StateLayout:
    """The state, besides ``step``, of parameters of one dtype for the options of a param group.

    Attributes:
        buffers: names of the rule's buffers, in its order.
        formats: format of each buffer.
        has_base: whether the base iterate is stored; if not, the parameter holds it.
        base_dtype: dtype of the base iterate and of the arithmetic.
    """

    buffers: tuple[str, ...]
    formats: tuple[Format, ...]
    has_base: bool
    base_dtype: torch.dtype

    @classmethod
    def of(cls, spec: RuleSpec, group: Mapping[str, Any], dtype: torch.dtype) -> StateLayout:
        """Return the layout for parameters of ``dtype``.

        Raises:
            ValueError: the ``state_dtype`` is not possible for parameters of this dtype.
        """
        buffers = spec.buffers_of(group)
        base_dtype = arithmetic_dtype(dtype)
        plain, chosen = Format(base_dtype), STATE_FORMATS[group["state_dtype"]]
        if chosen is not None and base_dtype != torch.float32:
            raise ValueError(
                f"Invalid state_dtype value: {group['state_dtype']} for a parameter of {dtype}; it is for float32, "
                "bfloat16 and float16 parameters: put this one into a param group with state_dtype=torch.float32"
            )
        formats = [plain if chosen is None else chosen.signed if b.signed else chosen.unsigned for b in buffers]
        return cls(tuple(b.name for b in buffers), tuple(formats), _needs_base(group, dtype), base_dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors of the parameter's shape."""
        return ("base", *self.buffers) if self.has_base else self.buffers

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype of the tensor ``name``; for an unknown name, that of the arithmetic."""
        if name in self.buffers:
            return self.formats[self.buffers.index(name)].dtype
        return self.base_dtype

    def empty(self, name: str, param: Tensor) -> Tensor:
        """Return an uninitialized tensor ``name`` for ``param``."""
        return empty_dense(param, self.dtype_of(name))

    def fits(self, name: str, tensor: Tensor, param: Tensor) -> bool:
        """Whether ``tensor`` is as :meth:`empty` would make it."""
        if tensor.dtype != self.dtype_of(name) or tensor.shape != param.shape or tensor.device != param.device:
            return False
        wanted = param if is_dense(param) else torch.empty(param.shape, device="meta")
        return tensor.numel() == 0 or all(
            size <= 1 or have == want for size, have, want in zip(param.shape, tensor.stride(), wanted.stride())
        )

    def complete(self, state: State, param: Tensor) -> bool:
        """Whether ``state`` has every tensor that a step on the host needs, in the right dtype and layout."""
        if "step" not in state or not _is_step_count(state["step"], None):
            return False
        return all([name in state and self.fits(name, state[name], param) for name in self.names])

    def prepare(self, state: State, param: Tensor, step_device: Optional[torch.device]) -> None:
        """Create what is missing in ``state``, convert what does not fit, and drop a base that is not needed.

        Args:
            state: state of ``param``, changed in place; entries with other names do not change.
            param: holds the base iterate if none is stored yet.
            step_device: device of the step count; None: it is on the host.
        """
        if "step" not in state or not _is_step_count(state["step"], step_device):
            state["step"] = step_count(state.get("step", 0.0), step_device)
        if not self.has_base and "base" in state:
            param.copy_(state.pop("base"))
        self.create_missing(state, param)
        for name in self.names:
            if not self.fits(name, state[name], param):
                state[name] = self.empty(name, param).copy_(state[name])

    def create_missing(self, state: State, param: Tensor) -> None:
        """Create the tensors that ``state`` lacks besides the step count; ``param`` holds the base iterate."""
        for name in self.names:
            if name not in state:
                created = self.empty(name, param)
                state[name] = created.copy_(param) if name == "base" else created.zero_()
