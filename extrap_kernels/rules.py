"""What a rule consists of, as data: everything that is not its arithmetic is derived from here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional


@dataclass(frozen=True)
class Buffer:
    """A tensor of the parameter's shape that a rule keeps from step to step.

    Attributes:
        name: its key in the state.
        signed: whether its elements may be negative.
        option: name of an option of the param group; where that is 0, the rule keeps no such buffer. None: it always
            does.
    """

    name: str
    signed: bool
    option: Optional[str] = None


@dataclass(frozen=True)
class RuleSpec:
    """A rule.

    Attributes:
        name: also the name of its files: ``csrc/core/rules/<name>.h``, ``extrap_kernels/reference/rules/<name>.py`` and
            ``triton_kernels/rules/<name>.py``.
        buffers: in the order in which the kernels take them.
        norm: what it takes the norm of for each tensor, besides ``x``, to scale its step by a trust ratio: the gradient
            or the update. None: it takes no norms.
        own_decay: whether it does the weight decay itself.
    """

    name: str
    buffers: tuple[Buffer, ...] = ()
    norm: Optional[Literal["gradient", "update"]] = None
    own_decay: bool = False

    def buffers_of(self, group: Mapping[str, Any]) -> tuple[Buffer, ...]:
        """Return the buffers that the rule keeps under the options of a param group."""
        return tuple([b for b in self.buffers if b.option is None or group[b.option] != 0])

    def variants(self) -> tuple[tuple[Buffer, ...], ...]:
        """Return each set of buffers that the rule may keep; kernels are compiled for each of them."""
        always = tuple(b for b in self.buffers if b.option is None)
        return (always,) if always == self.buffers else (always, self.buffers)


def every_rule() -> dict[str, RuleSpec]:
    """Return all rules by name: those of the modules in :mod:`extrap_kernels.reference.rules`."""
    from extrap_kernels.reference import rules

    modules = (importlib.import_module(f"{rules.__name__}.{m.name}") for m in pkgutil.iter_modules(rules.__path__))
    return {module.SPEC.name: module.SPEC for module in modules}
