"""Whether somebody writes into parameters between steps, where that has no effect."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor
from torch.nn import Parameter

from extrap_kernels.shards import is_dtensor

if TYPE_CHECKING:
    from extrap_kernels.optimizer import ExtrapOptimizer

_SAMPLE = 8  # numbers
_PERIOD = 17  # steps: prime, so that every parameter has its turn


class Watch:
    """Looks at one parameter in each step, another one each time: code that writes between steps writes into many.

    autograd's version counter tells of changes, but not of those through ``param.data``. A few numbers do: those of a
    parameter on the CPU are compared in every 17th step. Parameters that are parts of one memory share a counter, which
    then tells nothing of one of them.
    """

    def __init__(self) -> None:
        self._warned = False
        self._turn = 0
        self.reset()

    def reset(self) -> None:
        """Forget what the parameter was: it was changed by this package."""
        self._param: Optional[Tensor] = None
        self._version: Optional[int] = None
        self._sample: Optional[Tensor] = None

    def note(self, optimizer: ExtrapOptimizer) -> None:
        """Note what one parameter is after a step."""
        params = optimizer.param_groups[self._turn % len(optimizer.param_groups)]["params"]
        if self._warned or not params:
            return
        self._param = param = params[self._turn % len(params)]
        self._turn += 1
        # Others have a counter of their own.
        plain = type(param) in (Tensor, Parameter) and param.layout is torch.strided and not param.is_nested
        shares = plain and param.untyped_storage().nbytes() != param.nbytes
        self._version = None if shares else param._version
        if self._turn % _PERIOD == 0:
            self._sample = _sample_of(param)

    def compare(self, optimizer: ExtrapOptimizer) -> None:
        """Warn, once, if the parameter noted after the last step has been changed since."""
        param, self._param = self._param, None
        if param is None:
            return
        unwritten = self._version is None or param._version == self._version
        if unwritten and self._sample is None:
            return
        same = unwritten and _same(_sample_of(param), self._sample)
        self._sample = None
        if same or optimizer.stepper.extrapolated:
            return
        if optimizer.base_owners.holds_base(optimizer.state.get(param, {})):
            return
        self._warned = True
        warnings.warn(
            f"{name_of(optimizer, param)} was changed between steps of {type(optimizer).__name__} in train mode. It "
            "holds the extrapolated point, which the step replaces: the change has no effect. Change it in eval mode "
            "or inside optimizer.base_parameters(), or call optimizer.set_base(param, value). This is said once",
            stacklevel=2,
        )


def _sample_of(param: Tensor) -> Optional[Tensor]:
    """Return a copy of the first numbers; None for one whose values are not on the host."""
    if param.device.type != "cpu" or is_dtensor(param):
        return None
    return param.detach().reshape(-1)[:_SAMPLE].clone() if param.is_contiguous() else None


def _same(a: Optional[Tensor], b: Optional[Tensor]) -> bool:
    return a is None or b is None or torch.equal(a.nan_to_num(), b.nan_to_num())


def name_of(optimizer: ExtrapOptimizer, param: Tensor) -> str:
    """Return what messages call a parameter of ``optimizer``."""
    for number, group in enumerate(optimizer.param_groups):
        for i, other in enumerate(group["params"]):
            if other is param:
                return describe(group, number, i)
    return f"a parameter of shape {tuple(param.shape)}"


def describe(group: dict[str, object], number: int, i: int) -> str:
    """Return what messages call parameter ``i`` of ``group``, the group ``number``: its name, if there is one, too."""
    params, names = group["params"], group.get("param_names")
    assert isinstance(params, list)
    name = f"{names[i]!r}, " if isinstance(names, list) and i < len(names) else ""
    return f"parameter {i} of group {number} ({name}shape {tuple(params[i].shape)})"
