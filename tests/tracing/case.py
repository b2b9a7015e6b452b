"""One step of one element: what is done, with which options, in which formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch

from extrap_kernels.launch import GradScaling, Launch, Phase
from extrap_kernels.options import CODES, DEFAULTS, scalars_of
from extrap_kernels.rules import Buffer, RuleSpec
from extrap_kernels.scalars import SCALARS
from extrap_kernels.state.layout import StateLayout

# Recognizable, and far from each other's sums, products and differences from 1.
_VALUES = (0.0371, 0.2113, 0.3467, 0.0519, 0.8831, 0.1373, 0.7193, 0.9421, 0.00617, 0.4391, 0.0291, 0.6173, 0.0817)
# Of x, and of the gradient or update: norms that are exact when they are made of their squares.
NORM_X, NORM, RMS = 3.0, 7.0, 0.6471
INDEX = 5


def every_option() -> dict[str, Any]:
    """Return a param group with a value for each scalar that a group sets; those of the choices and flags are off."""
    names = [scalar.name for scalar in SCALARS if scalar.is_option and scalar.dtype == "float64"]
    group: dict[str, Any] = {scalar.name: scalar.default for scalar in SCALARS if scalar.is_option}
    group.update({name: _VALUES[k % len(_VALUES)] * (1 + k // len(_VALUES) / 7) for k, name in enumerate(names)})
    choices = {name: codes[0] for name, codes in CODES.items()}
    return {**DEFAULTS, **group, **choices, "betas": (group["beta1"], group["beta2"]), "seed": 0x0123456789ABCDEF}


@dataclass(frozen=True)
class Case:
    """A step. ``options`` are those that :func:`every_option` does not have so."""

    spec: RuleSpec
    buffers: Sequence[Buffer]
    options: dict[str, Any] = field(default_factory=dict)
    phase: Phase = Phase.UPDATE
    param: torch.dtype = torch.float32
    gradient: Optional[torch.dtype] = None
    has_local: bool = False
    grad_scale: float = 1.0
    clip: float = 1.0
    step: int = 7
    inner_lr: float = 0.0  # of the step before

    def __str__(self) -> str:
        facts = [self.spec.name, f"{len(self.buffers)} buffers", self.phase.value, str(self.param).split(".")[-1]]
        facts += [f"{name}={value!r}" for name, value in self.options.items()]
        facts += [f"{name}={getattr(self, name)}" for name in ("has_local", "grad_scale", "clip", "step", "inner_lr")]
        return ", ".join(facts)

    def with_options(self, **options: Any) -> Case:
        """Return the case with other options."""
        return replace(self, options={**self.options, **options})

    def in_phase(self, phase: Phase) -> Case:
        """Return the case in another phase."""
        return replace(self, phase=phase)

    def with_local_gradient(self) -> Case:
        """Return the case with a gradient of this worker's own."""
        return replace(self, has_local=True)

    @property
    def is_measured(self) -> bool:
        """Whether the norm may be taken of what this step computes to extrapolate along."""
        along, half = self.group["extrapolation"], self.phase is Phase.EXTRAPOLATE
        exists = along is not None and (along != "momentum" or bool(self.buffers))
        # With a norm that takes x, the base is stored.
        possible = self.spec.norm is None and (along == "momentum" or not self.layout.recovers_base)
        return possible and exists and (along == "extragradient") == half

    @property
    def layout(self) -> StateLayout:
        """Which state there is."""
        return StateLayout.of(self.spec, self.group, self.param)

    @property
    def arithmetic(self) -> torch.dtype:
        """The dtype of the arithmetic."""
        return torch.float64 if self.param == torch.float64 else torch.float32

    @property
    def gradient_dtype(self) -> torch.dtype:
        """The dtype of the gradients: by default that of the parameter."""
        return self.gradient or self.param

    @property
    def group(self) -> dict[str, Any]:
        """The param group."""
        absent = {b.option: 0.0 for b in self.spec.buffers if b.option is not None and b not in self.buffers}
        return {**every_option(), **absent, **self.options}

    @property
    def launch(self) -> Launch:
        """The options as the kernels take them."""
        scaling = GradScaling(self.grad_scale, self.clip)
        return Launch.of(self.group, scalars_of(self.group), phase=self.phase, rank=3, scaling=scaling)
