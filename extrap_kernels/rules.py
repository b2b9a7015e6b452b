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
    """

    name: str
    buffers: tuple[Buffer, ...] = ()
    norm: Optional[Literal["gradient", "update"]] = None
    own_decay: bool = False

    def buffers_of(self, group: Mapping[str, Any]) -> tuple[Buffer, ...]:
        """Return the buffers of the rule for the options of a param group."""
        kept: tuple[Buffer, ...] = ()
        for buffer in self.buffers:
            if buffer.option is None or group[buffer.option] != 0:
                kept += (buffer,)
        return kept

    def variants(self) -> tuple[tuple[Buffer, ...], ...]:
        """Return the possible sets of buffers; there is a kernel for each."""
        always = tuple(b for b in self.buffers if b.option is None)
        return (always,) if always == self.buffers else (always, self.buffers)


def every_rule() -> dict[str, RuleSpec]:
    """Return all rules by name: those of the modules in :mod:`extrap_kernels.reference.rules`."""
    from extrap_kernels.reference import rules

    modules = (importlib.import_module(f"{rules.__name__}.{m.name}") for m in pkgutil.iter_modules(rules.__path__))
    return {module.SPEC.name: module.SPEC for module in modules}
