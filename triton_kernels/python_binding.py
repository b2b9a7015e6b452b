"""Binds the tensors of a step where the native module is missing: some 8 µs each, where that takes less than one."""

from __future__ import annotations

import functools
import operator
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.dense_copies import DenseCopies
from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.rules import RuleSpec
from extrap_kernels.state.blocks import exponents_shape
from extrap_kernels.state.float24 import BASE_LOW
from extrap_kernels.state.layout import State, StateLayout, exponents_of
from extrap_kernels.state.recovery import INNER_LR
from extrap_kernels.triton_kernels.kernels.table import MAX_BUFFERS

# Among the addresses of an entry: the gradient, and the first buffer.
_GRADIENT, _BUFFERS = 5, 7


# Shape, strides, dtype and number of the device (comparing torch.device objects takes longer than all the rest).
Signature = tuple[torch.Size, tuple[int, ...], torch.dtype, int]


def signature(like: Tensor, dtype: torch.dtype | None = None) -> Signature:
    """Return all that the tables of a bucket take for granted of a tensor that is ``like`` a strided one."""
    return like.shape, like.stride(), like.dtype if dtype is None else dtype, like.get_device()


def _exponents_signature(like: Tensor) -> Signature:
    shape = exponents_shape(like.shape)
    return torch.Size(shape), (shape[1], 1), torch.uint8, like.get_device()


def have_signatures(tensors: Sequence[Tensor], wanted: Sequence[Signature]) -> bool:
    """Whether strided tensors have their signatures to the last stride: quick, for every tensor in every step."""
    return [(t.shape, t.stride(), t.dtype, t.get_device()) for t in tensors] == wanted


def fits(tensor: Tensor, wanted: Signature) -> bool:
    """Whether a kernel may walk ``tensor`` as one with the signature: strides of dimensions of size 1 do not matter."""
    shape, strides, dtype, device = wanted
    if tensor.layout != torch.strided or (tensor.shape, tensor.dtype, tensor.get_device()) != (shape, dtype, device):
        return False
    return tensor.numel() == 0 or all([n <= 1 or a == b for n, a, b in zip(shape, tensor.stride(), strides)])


def is_plain(tensor: Tensor) -> bool:
    """Whether the memory holds the values of ``tensor`` themselves, neither conjugated nor negated lazily."""
    return not (tensor.is_conj() or tensor.is_neg())


def _check_memory(name: str, tensor: Tensor) -> None:
    if tensor.numel() == 0:
        return
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    held = 0 if tensor.is_meta else tensor.untyped_storage().nbytes()
    if held < needed:
        raise ValueError(f"{name} has fewer bytes in its storage than its elements take; give it its memory back")


class PythonBinding:
    """See :class:`extrap_kernels.triton_kernels.binding.Binding`."""

    def __init__(
        self, spec: RuleSpec, layout: StateLayout, entries: Sequence[ParamEntry], grad_dtype: torch.dtype
    ) -> None:
        self.copies = DenseCopies(entries, grad_dtype)
        self._layout, self._entries = layout, entries
        self._exponents = tuple(exponents_of(name) for name in layout.buffers) if layout.has_blocks else ()
        base = ("base",) if layout.has_base else ()
        self._low = (BASE_LOW,) if layout.splits_base else ()
        scalars = [torch.float32, *([layout.base_dtype.to_real()] if layout.recovers_base else [])]
        device = entries[0].param.device
        # Of the parameter, the gradient, the scalars and the rest of the state of each entry.
        self._signatures = [
            [
                signature(entry.param),
                signature(dense, grad_dtype),
                *(signature(torch.empty((), dtype=dtype, device=device)) for dtype in scalars),
                *(signature(dense, layout.dtype_of(name)) for name in base),
                *(signature(dense, torch.uint8) for _ in self._low),
                *(signature(dense, layout.dtype_of(name)) for name in layout.buffers),
                *(_exponents_signature(dense) for _ in self._exponents),
            ]
            for entry, dense in zip(entries, self.copies.dense_params)
        ]
        scalar_names = ("step", INNER_LR)[: len(scalars)]
        self._state_names = (*scalar_names, *base, *self._low, *layout.buffers, *self._exponents)
        # Of the tensors of an entry, in the order of their addresses.
        state = ("step", INNER_LR, "base", BASE_LOW, *layout.buffers, *self._exponents)
        of_state = [f"state {name!r}" for name in state]
        names = (*of_state[:2], "the value", *of_state[2:4], "the gradient", "the local gradient", *of_state[4:])
        self._names = [[f"{name} of {entry.name}" for name in names] for entry in entries]
        # Those that lie inside of their storages, by entry; empty for one that is left out.
        self._addresses: list[list[int]] = [[] for _ in entries]
        self._held: list[tuple[Any, ...]] = []

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """See :class:`extrap_kernels.triton_kernels.binding.Binding`."""
        self._held, incomplete = [], []
        # All of them first: a subclass may compute its gradient, by code that could change other tensors.
        gradients = [entry.param.grad for entry in self._entries]
        for i, (entry, gradient) in enumerate(zip(self._entries, gradients)):
            if gradient is None:
                if not fits(entry.param, self._signatures[i][0]):
                    return None
                self._addresses[i] = []
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
            self._hold(i, gradient, local, state)
        return incomplete

    def _hold(self, i: int, gradient: Tensor, local: Optional[Tensor], state: Sequence[Any]) -> None:
        """Hold the tensors of entry ``i``, and look at the storages of those that were not there in the last step."""
        dense = self.copies.dense_params[i]
        step, *stored = state
        inner_lr, *stored = stored if self._layout.recovers_base else (None, *stored)
        base, *buffers = stored if self._layout.has_base else (dense, *stored)
        low, *buffers = buffers if self._low else (None, *buffers)
        tensors = (step, inner_lr, dense, base, low, gradient, local, *buffers)
        self._held.append(tensors)
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        if addresses != self._addresses[i]:
            for name, tensor in zip(self._names[i], tensors):
                if tensor is not None:
                    _check_memory(name, tensor)
            self._addresses[i] = addresses

    def write_rows(self, table: array[int], first: int, width: int) -> None:
        """See :class:`extrap_kernels.triton_kernels.binding.Binding`."""
        for i, addresses in enumerate(self._addresses):
            at = first + width * i
            if not addresses:
                table[at + _GRADIENT] = 0
                continue
            buffers_end = len(addresses) - len(self._exponents)
            buffers, exponents = addresses[_BUFFERS:buffers_end], addresses[buffers_end:]
            is_aligned = int(functools.reduce(operator.or_, addresses[2:buffers_end]) % 16 == 0)
            row = array("q", [*addresses[:_BUFFERS], is_aligned, *buffers])
            if exponents:
                row.extend([*[0] * (MAX_BUFFERS - len(buffers)), *exponents])
            row[_GRADIENT] = row[_GRADIENT] or 16  # an empty tensor lies nowhere, and its step counts nevertheless
            table[at : at + len(row)] = row

    def stepped(self) -> Sequence[int]:
        """Return the entries that have a gradient."""
        return [i for i, addresses in enumerate(self._addresses) if addresses]

    def release(self) -> None:
        """Let go of the tensors."""
        self._held = []

    def _is_as_expected(self, i: int, gradient: Tensor, state: Sequence[Optional[Tensor]]) -> bool:
        """Whether all tensors of an entry can be walked as they are: quick; where it is False, they may fit yet."""
        entry = self._entries[i]
        if gradient.layout is not torch.strided or any([tensor is None for tensor in state]):
            return False
        tensors: list[Any] = [entry.param, gradient, *state]
        return have_signatures(tensors, self._signatures[i]) and is_plain(entry.param) and is_plain(gradient)

    def _param_fits(self, i: int) -> bool:
        param = self._entries[i].param
        return fits(param, self._signatures[i][0]) and (param is not self.copies.dense_params[i] or is_plain(param))

    def _state_fits(self, i: int, state: Sequence[Optional[Tensor]]) -> bool:
        return all([t is not None and fits(t, wanted) for t, wanted in zip(state, self._signatures[i][2:])])

    def _readable(self, i: int, gradient: Tensor, *, is_local: bool = False) -> Optional[Tensor]:
        """Return a gradient as a kernel can walk it, a copy if need be; None if it no longer fits the bucket."""
        if fits(gradient, self._signatures[i][1]) and is_plain(gradient):
            return gradient
        return self.copies.to_layout(i, gradient, is_local=is_local)
