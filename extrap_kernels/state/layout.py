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
from extrap_kernels.shards import local_part
from extrap_kernels.state.blocks import BlockFormat, empty_exponents, exponents_shape, takes_blocks
from extrap_kernels.state.float24 import BASE_LOW, SPLIT, SplitFormat, stored_base
from extrap_kernels.state.format import Format
from extrap_kernels.state.formats import STATE_FORMATS
from extrap_kernels.state.recovery import INNER_LR, base_of, inner_lr_as, is_inner_lr

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
        first_buffer: name of the rule's first buffer, whether it is kept or not.
        block_formats: format that each buffer has, or would have, in blocks: what else uint8 may mean.
        has_base: whether the base iterate is stored; if not, the parameter holds it, or it is recovered.
        recovers_base: whether it is recovered from the parameter and the first buffer.
        base_dtype: dtype of the arithmetic.
        base_format: format of the base iterate.
    """

    buffers: tuple[str, ...]
    first_buffer: str
    formats: tuple[Format, ...]
    block_formats: tuple[Format, ...]
    has_base: bool
    recovers_base: bool
    base_dtype: torch.dtype
    base_format: Format

    @classmethod
    def of(cls, spec: RuleSpec, group: Mapping[str, Any], dtype: torch.dtype, *, blocks: bool = False) -> StateLayout:
        """Return the layout for parameters of ``dtype``; ``blocks``: whether their state may lie in blocks.

        Raises:
            ValueError: the ``state_dtype`` is not possible for parameters of this dtype.
        """
        buffers = spec.buffers_of(group)
        base_dtype = arithmetic_dtype(dtype)
        chosen, in_blocks = STATE_FORMATS[group["state_dtype"]], STATE_FORMATS[torch.uint8]
        assert in_blocks is not None
        if chosen is not None and base_dtype != torch.float32:
            raise ValueError(
                f"Invalid state_dtype value: {group['state_dtype']} for a parameter of {dtype}; it is for float32, "
                "bfloat16 and float16 parameters: put this one into a param group with state_dtype=torch.float32"
            )
        plain = Format(base_dtype)
        if chosen is in_blocks and not blocks:
            chosen = None
        formats = [plain if chosen is None else chosen.of(signed=b.signed) for b in buffers]
        stored_exactly = dtype == base_dtype and group["state_dtype"] == torch.float32
        recovers = stored_exactly and spec.recovers_base(group)
        return cls(
            tuple(b.name for b in buffers),
            spec.first_buffer,
            tuple(formats),
            tuple(in_blocks.of(signed=b.signed) for b in buffers),
            _needs_base(group, dtype) and not recovers,
            recovers,
            base_dtype,
            plain if chosen is None or dtype == base_dtype else SPLIT,
        )

    @classmethod
    def of_param(cls, spec: RuleSpec, group: Mapping[str, Any], param: Tensor) -> StateLayout:
        """Return the layout for a parameter; see :meth:`of`."""
        return cls.of(spec, group, param.dtype, blocks=takes_blocks(param))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors of the parameter's shape."""
        return ("base", *self.buffers) if self.has_base else self.buffers

    @property
    def has_blocks(self) -> bool:
        """Whether buffers are stored in blocks."""
        return any(isinstance(form, BlockFormat) for form in self.formats)

    def format_of(self, name: str) -> Format:
        """Return the format of the tensor ``name``; for an unknown name, that of the arithmetic."""
        if name == "base":
            return self.base_format
        return self.formats[self.buffers.index(name)] if name in self.buffers else Format(self.base_dtype)

    @property
    def splits_base(self) -> bool:
        """Whether the base iterate is stored in two tensors."""
        return isinstance(self.base_format, SplitFormat)

    @property
    def rounds(self) -> bool:
        """Whether random bits round anything that a step stores."""
        return self.splits_base or any(form.random for form in self.formats)

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype of the tensor ``name``; for an unknown name, that of the arithmetic."""
        return self.format_of(name).dtype

    def empty(self, name: str, param: Tensor) -> Tensor:
        """Return an uninitialized tensor ``name`` for ``param``."""
        return empty_dense(param, self.dtype_of(name))

    def fits(self, name: str, state: Mapping[str, Any], param: Tensor) -> bool:
        """Whether ``state`` has the tensor ``name``, and the one beside it if need be, as a step needs them."""
        form, second = self.format_of(name), state.get(beside(name))
        if isinstance(form, BlockFormat) and not _are_exponents(second, param):
            return False
        if isinstance(form, SplitFormat) and not _lies_as(param, second, torch.uint8):
            return False
        return _lies_as(param, state.get(name), form.dtype)

    def complete(self, state: State, param: Tensor) -> bool:
        """Whether ``state`` has every tensor that a step on the host needs, in the right dtype and layout."""
        if "step" not in state or not _is_step_count(state["step"], None):
            return False
        if self.recovers_base and not is_inner_lr(state.get(INNER_LR), self.base_dtype, None):
            return False
        return self._stores_base_as(state) and all([self.fits(name, state, param) for name in self.names])

    def _stores_base_as(self, state: Mapping[str, Any]) -> bool:
        """Whether the base iterate is in ``state``, or to be recovered, just where it is here."""
        return ("base" in state, INNER_LR in state) == (self.has_base, self.recovers_base)

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
            param.copy_(stored_base(state))
            for name in ("base", BASE_LOW, INNER_LR):
                state.pop(name, None)
        elif INNER_LR in state and not self.has_base and not self.recovers_base:
            param.copy_(base_of(param, state, self.first_buffer))
            del state[INNER_LR]
        self.create_missing(state, param)
        self.convert(state, param)
        if self.recovers_base and not is_inner_lr(state[INNER_LR], self.base_dtype, step_device):
            state[INNER_LR] = inner_lr_as(state[INNER_LR], self.base_dtype, step_device)

    def convert(self, state: State, param: Tensor) -> None:
        """Replace the tensors in ``state`` that have another format or layout; none is changed in place."""
        for name in self.names:
            if name in state and not self.fits(name, state, param):
                self.put(name, state, param, self.numbers(name, state, param))

    def create_missing(self, state: State, param: Tensor) -> None:
        """Create the tensors that ``state`` lacks besides the step count; ``param`` holds ``x`` if none does."""
        for name in self.names:
            if name not in state:
                self.put(name, state, param, base_of(param, state, self.first_buffer) if name == "base" else None)
        if self.has_base:
            state.pop(INNER_LR, None)
        elif self.recovers_base and "base" not in state and INNER_LR not in state:
            state[INNER_LR] = inner_lr_as(0.0, self.base_dtype, None)

    def numbers(self, name: str, state: Mapping[str, Any], param: Tensor) -> Tensor:
        """Return what the tensor ``name`` of ``state`` stands for, whatever its format, in floating point.

        Raises:
            ValueError: the tensor beside it is missing.
        """
        if name == "base":
            return stored_base(state)
        stored: Tensor = state[name]
        if stored.dtype != torch.uint8:
            return stored
        if exponents_of(name) not in state:
            raise ValueError(
                f"the state of a parameter of shape {tuple(param.shape)} has {name!r} in uint8 and lacks "
                f"{exponents_of(name)!r}, the exponents of its blocks; load a whole checkpoint, or put {name!r} there "
                "in float32"
            )
        numbers = empty_dense(param, torch.float32)
        form, exponents = self.block_formats[self.buffers.index(name)], state[exponents_of(name)]
        decoded = form.decode(local_part(stored), torch.float32, local_part(exponents))
        local_part(numbers).copy_(decoded)
        return numbers

    def put(self, name: str, state: State, param: Tensor, numbers: Optional[Tensor]) -> None:
        """Store ``numbers``, floating point, or zeros for None, as the tensor ``name``, rounded to nearest."""
        form, stored = self.format_of(name), self.empty(name, param)
        state.pop(beside(name), None)
        if not isinstance(form, (BlockFormat, SplitFormat)):
            state[name] = stored.zero_() if numbers is None else stored.copy_(numbers)
            return
        whole = empty_dense(param, torch.float32)
        whole = whole.zero_() if numbers is None else whole.copy_(numbers)
        second = empty_exponents(param) if isinstance(form, BlockFormat) else empty_dense(param, torch.uint8)
        form.store(local_part(stored), local_part(whole), None, local_part(second))
        state[name], state[beside(name)] = stored, second


def exponents_of(name: str) -> str:
    """Return the name of the exponents of the buffer ``name``, if it is stored in blocks."""
    return f"{name}_exponent"


def beside(name: str) -> str:
    """Return the name of the second tensor of the state's tensor ``name``, if its format has one."""
    return BASE_LOW if name == "base" else exponents_of(name)


def _lies_as(param: Tensor, tensor: Any, dtype: torch.dtype) -> bool:
    """Whether ``tensor`` is there as a step needs it: of this dtype, and else like ``param``."""
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        return False
    if tensor.shape != param.shape or tensor.device != param.device:
        return False
    wanted = param if is_dense(param) else torch.empty(param.shape, device="meta")
    return tensor.numel() == 0 or all(
        size <= 1 or have == want for size, have, want in zip(param.shape, tensor.stride(), wanted.stride())
    )


def _are_exponents(tensor: Any, param: Tensor) -> bool:
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8 or tensor.device != param.device:
        return False
    return tensor.shape == exponents_shape(param.shape) and local_part(tensor).is_contiguous()
