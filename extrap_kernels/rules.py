"""Describes a rule as data. Everything but the arithmetic derives from it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional


@dataclass(frozen=True)
class Buffer:
    """A state tensor of a rule, with the shape of the parameter.

    Attributes:
        name: its key in the state.
        signed: whether its elements may be negative.
        option: name of an option; the buffer exists only if the option is not 0. None: it always exists.
    """

    name: str
    signed: bool
    option: Optional[str] = None


@dataclass(frozen=True)
class RuleSpec:
    """A rule.

    Attributes:
        name: also the name of its files, ``csrc/core/rules/<name>.h``, ``extrap_kernels/reference/rules/<name>.py`` and
            ``triton_kernels/rules/<name>.py``.
        buffers: in the order in which the kernels take them.
        norm: for a rule with a trust ratio, the tensor whose norm it needs besides that of ``x``: the gradient or the
            update. None: the rule needs no norms.
        own_decay: whether the rule applies weight decay itself.
        updates_by_momentum: whether the update is the first buffer as it is, unless the option ``nesterov`` is set.
    """

    name: str
    buffers: tuple[Buffer, ...] = ()
    norm: Optional[Literal["gradient", "update"]] = None
    own_decay: bool = False
    updates_by_momentum: bool = False

    @property
    def first_buffer(self) -> str:
        """Name of the first buffer, which is the first moment; empty if there are none."""
        return self.buffers[0].name if self.buffers else ""

    def buffers_of(self, group: Mapping[str, Any]) -> tuple[Buffer, ...]:
        """Return the buffers of the rule for the options of a param group."""
        kept: tuple[Buffer, ...] = ()
        for buffer in self.buffers:
            if buffer.option is None or group[buffer.option] != 0:
                kept += (buffer,)
        return kept

    def recovers_base(self, group: Mapping[str, Any]) -> bool:
        """Whether ``x = y + inner_lr * m`` gives the base iterate back, with the first buffer ``m`` after the step.

        Not where the norm of all directions is taken along the update, which takes ``x``.
        """
        if self.norm is not None or group["noise"] is not None or group["extrap_scale"] != "absolute":
            return False
        if not self.buffers_of(group):
            return False
        if group["extrapolation"] == "past_update":
            return self.updates_by_momentum and not group.get("nesterov") and group["extrap_norm"] is None
        return bool(group["extrapolation"] == "momentum")

    def variants(self) -> tuple[tuple[Buffer, ...], ...]:
        """Return the possible sets of buffers; there is a kernel for each."""
        always = tuple(b for b in self.buffers if b.option is None)
        return (always,) if always == self.buffers else (always, self.buffers)


def every_rule() -> dict[str, RuleSpec]:
    """Return all rules by name: those of the modules in :mod:`extrap_kernels.reference.rules`."""
    from extrap_kernels.reference import rules

    modules = (importlib.import_module(f"{rules.__name__}.{m.name}") for m in pkgutil.iter_modules(rules.__path__))
    return {module.SPEC.name: module.SPEC for module in modules}
