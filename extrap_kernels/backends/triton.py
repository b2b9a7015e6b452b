"""Backend ``triton``: Triton kernels on the tensors of one device and dtype combination. Imports Triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional

import torch
import triton
from torch import Tensor

from extrap_kernels.backends.launch_options import LaunchOptions
from extrap_kernels.backends.member import Member
from extrap_kernels.backends.scaling import Scaling
from extrap_kernels.backends.staging import Staging
from extrap_kernels.layout import base_dtype, has_state_layout
from extrap_kernels.triton_kernels import is_interpreted, variants
from extrap_kernels.triton_kernels.plan import NoiseRows, PinnedTable, Spread, Sums, chunks, device_table, real_numel
from extrap_kernels.triton_kernels.rules import RULES_WITH_NORMS
from extrap_kernels.triton_kernels.table import TensorRow
from extrap_kernels.triton_kernels.variants import Tiling

# What launches recorded in CUDA graphs read; they may be replayed for as long as the process lives.
_recorded: list[TritonExecutor] = []


def _dtype_name(dtype: torch.dtype) -> str:
    """Return the name of the real numbers that a dtype consists of."""
    return str(dtype.to_real()).removeprefix("torch.")


def _device_guard(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class TritonExecutor:
    """Steps its members, which share a device, a dtype and a gradient dtype, in one launch.

    Rules that scale by norms take one more, and so do noise scales that are an rms.

    Args:
        rule_name: name of the rule in :data:`extrap_kernels.triton_kernels.rules.RULES`.
        state_names: buffers of the rule, in its order.
        members: parameters with a gradient.
        like_param: whether the gradients have the dtype of the parameters; else they are read in that of the base.

    Raises:
        ValueError: a state tensor that does not fit its parameter.
    """

    on_device = True

    def __init__(
        self, rule_name: str, state_names: tuple[str, ...], members: Sequence[Member], like_param: bool
    ) -> None:
        self.device = members[0].param.device
        self._rule, self._state_names, self._members = rule_name, state_names, members
        self._staging = Staging(members, like_param)
        self._storages: list[torch.UntypedStorage] = []
        targets = self._staging.targets
        self._param, self._grad = _dtype_name(targets[0].dtype), _dtype_name(self._staging.grad_dtype)
        with _device_guard(self.device):
            self._tiling = _tiling(targets, self.device)
            chunk_rows = chunks([real_numel(target) for target in targets], self._tiling.chunk)
            self._rows = self._tensor_rows(chunk_rows)
            self._programs = len(chunk_rows)
            self._tensors = device_table(self._rows, self.device)
            self._chunks = device_table(chunk_rows, self.device)
            self._counters = torch.zeros(len(members), dtype=torch.int32, device=self.device)
            self._gradients = PinnedTable((len(members), 3), self.device)
        self._held: list[Tensor] = []
        self._gradient_sums: Optional[Sums] = None
        self._trust_sums: Optional[Sums] = None
        self._noise_rows: dict[str, NoiseRows] = {}
        self._square_sums: Optional[Tensor] = None

    # The tensors

    def _state_address(self, i: int, name: str) -> int:
        member = self._members[i]
        tensor = member.state.get(name)
        wanted = torch.float32 if name == "step" else base_dtype(member.param.dtype)
        if tensor is None or tensor.dtype != wanted or tensor.device != self.device:
            found = "missing" if tensor is None else f"a {tensor.dtype} tensor on {tensor.device}"
            raise ValueError(
                f"state {name!r} of parameter {member.index} is {found}; it must be {wanted} on {self.device}"
            )
        if name != "step" and not has_state_layout(tensor, member.param):
            raise ValueError(f"state {name!r} of parameter {member.index} has another layout than the parameter")
        # Should the tensor be given another storage, the old one must outlive the address of it.
        self._storages.append(tensor.untyped_storage())
        return tensor.data_ptr()

    def _tensor_rows(self, chunk_rows: Sequence[Sequence[int]]) -> list[TensorRow]:
        counts = [0] * len(self._members)
        for tensor, *_ in chunk_rows:
            counts[tensor] += 1
        rows = []
        for i, (member, target) in enumerate(zip(self._members, self._staging.targets)):
            buffers = [self._state_address(i, name) for name in self._state_names]
            m, v = (*buffers, 0, 0)[:2]
            base, step = self._state_address(i, "base"), self._state_address(i, "step")
            rows.append(TensorRow(real_numel(target), target.data_ptr(), base, m, v, step, member.index, counts[i]))
        return rows

    def _has_moved(self) -> bool:
        """Whether tensors were given another storage. Code that moves state moves all of it: one parameter's tells."""
        row, state = self._rows[0], self._members[0].state
        names = ("base", "step", *self._state_names)
        known = (row.base, row.step, row.m, row.v)[: len(names)]
        return any([state[name].data_ptr() != address for name, address in zip(names, known)]) or any(
            [target.data_ptr() != row.y for target, row in zip(self._staging.targets, self._rows)]
        )

    def _is_readable(self, i: int, gradient: Tensor) -> bool:
        """Whether a kernel may walk a gradient as it is."""
        target = self._staging.targets[i]
        return (
            gradient.dtype == self._staging.grad_dtype
            and gradient.layout == torch.strided
            and gradient.device == self.device
            and gradient.shape == target.shape
            and not gradient.is_conj()
            and not gradient.is_neg()
            and (
                gradient.stride() == target.stride()
                or gradient.numel() == 0
                or all([n <= 1 or a == b for n, a, b in zip(target.shape, gradient.stride(), target.stride())])
            )
        )

    def _address(self, i: int, gradient: Tensor, *, is_local: bool) -> Optional[int]:
        """Return where a kernel finds a gradient, relaid if it must be; None where it no longer fits."""
        if not self._is_readable(i, gradient):
            relaid = self._staging.relaid(i, self._members[i].param, gradient, is_local=is_local)
            if relaid is None:
                return None
            gradient = relaid
        self._held.append(gradient)
        return gradient.data_ptr()

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Take in the gradients of this step; False if the executor no longer fits the parameters."""
        if self._has_moved():
            return False
        self._held = []
        rows = []
        for i, (member, row) in enumerate(zip(self._members, self._rows)):
            gradient, local = member.param.grad, local_gradients.get(member.param) if local_gradients else None
            own: Optional[int] = 0
            if gradient is None or (at := self._address(i, gradient, is_local=False)) is None:
                return False
            if local is not None and (own := self._address(i, local, is_local=True)) is None:
                return False
            addresses = row.y | row.base | row.m | row.v | at | own
            rows.append((at, own, int(addresses % 16 == 0)))
        with _device_guard(self.device):
            self._gradients.write(rows)
        return True

    # The launches

    def _launch(self, variant: variants.Variant, programs: int, *arguments: Any) -> None:
        with _device_guard(self.device):
            variants.launch(variant, programs, self._tiling, *arguments)

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor on the device."""
        if self._gradient_sums is None:
            self._gradient_sums = Sums([self._whole_tensors()], self._tiling.piece, self.device)
        sums = self._gradient_sums
        variant = variants.SquareSums(self._grad, "gradients")
        self._launch(variant, sums.programs, self._tensors, self._gradients.on_device, *sums.tables, total)

    def _whole_tensors(self) -> list[tuple[int, int, Spread]]:
        return [(i, 0, Spread(row.numel, max(1, row.numel), 1)) for i, row in enumerate(self._rows)]

    def _trust_norms(self, numbers: tuple[int, ...]) -> Tensor:
        """Return the sums of squares that a rule scales by, in new or old memory."""
        if self._trust_sums is None:
            groups = [[whole] for whole in self._whole_tensors()] if self._rule in RULES_WITH_NORMS else []
            self._trust_sums = Sums(groups, self._tiling.piece, self.device, results=2)
        norms = self._trust_sums
        variant = variants.TrustNorms(self._rule, len(self._state_names), self._param, self._grad)
        arguments = (self._tensors, self._gradients.on_device, *norms.tables, norms.results, *numbers)
        self._launch(variant, norms.programs, *arguments)
        return norms.results

    def _rows_of_noise(self, group: Mapping[str, Any], correct: bool) -> NoiseRows:
        """Return the rows that noise is scaled by; none of them has a sum in a step without noise."""
        scale = group["noise_scale"] if correct and group["noise"] is not None else "absolute"
        if scale not in self._noise_rows:
            shards = [member.shard for member in self._members]
            self._noise_rows[scale] = NoiseRows(scale, self._staging.targets, shards, self._tiling.piece, self.device)
        return self._noise_rows[scale]

    def _over_rows(self, rows: NoiseRows, result: str) -> Tensor:
        """Return ``"rms"`` of each of the rows, or the sums of squares of what is here of ``"rows"``."""
        sums = rows.sums
        variant = variants.SquareSums(variants.arithmetic(self._param), result)
        self._launch(variant, sums.programs, self._tensors, self._gradients.on_device, *sums.tables, sums.results)
        return sums.results

    def square_sums(self, group: Mapping[str, Any], *, correct: bool, scaling: Scaling) -> Tensor:
        """Return what the next :meth:`run` makes norms of; what other processes have is to be added to it in place."""
        options = LaunchOptions(group, self._rule, key=0, scaling=scaling, device=self.device)
        rows = self._over_rows(self._rows_of_noise(group, correct), "rows")
        # A copy, so that a tensor of which nothing is here still has sums of 0 in the next step.
        self._square_sums = torch.cat([self._trust_norms(options.numbers), rows])
        return self._square_sums

    def _norms(self, rows: NoiseRows, numbers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the rms of each row and the sums of squares that the rule scales by, of whole tensors."""
        if self._square_sums is None:
            return self._over_rows(rows, "rms"), self._trust_norms(numbers)
        of_rows = rows.sizes.numel()
        sums, self._square_sums = self._square_sums, None
        trust_norms, squares = sums.split([sums.numel() - of_rows, of_rows])
        return squares.div_(rows.sizes).sqrt_(), trust_norms

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, scaling: Scaling) -> None:
        """Step every member under the options of ``group``."""
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing() and self not in _recorded:
            _recorded.append(self)
        options = LaunchOptions(group, self._rule, key=key, scaling=scaling, device=self.device)
        if not correct or scaling.found_inf is not None:
            self._staging.fetch()
        noise = group["noise"] if correct else None
        sharded = noise is not None and self._members[0].shard is not None
        variant = variants.Step(self._rule, len(self._state_names), self._param, self._grad, correct, noise, sharded)
        rows = self._rows_of_noise(group, correct)
        self._launch(
            variant,
            self._programs,
            *(self._tensors, self._gradients.on_device, self._chunks, self._counters, rows.table),
            *self._norms(rows, options.numbers),
            *options.numbers,
        )
        self._staging.put_back()
        self._held = []


def _tiling(targets: Sequence[Tensor], device: torch.device) -> Tiling:
    if is_interpreted():
        return variants.interpreter_tiling(max(map(real_numel, targets)))
    return variants.compiled_tiling(triton.runtime.driver.active.get_current_target().warp_size)
