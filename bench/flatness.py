"""The optimizer's part of MSAM and SAM: ours, and around torch's fused optimizers as users write them, with foreach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.baselines import BUFFERS, OPTIONS, OURS, TORCH, Baseline, our_bytes

RHO = 0.05
MSAM: dict[str, Any] = {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": RHO}
SAM: dict[str, Any] = {"extrapolation": "extragradient", "extrap_norm": "global", "extrap_lr": -RHO}
_MOMENTS = {"sgd": "momentum_buffer", "adamw": "exp_avg"}


def rows(rule: str, params: Sequence[Tensor]) -> dict[str, Baseline]:
    """Return the rows of a table, for float32 parameters: MSAM, SAM without its two backward passes, the plain step."""
    name, moved = OURS[rule].__name__, sam_bytes(rule)
    msam_moved = our_bytes(rule, torch.float32, **MSAM)
    return {
        f"MSAM, {name}": Baseline(OURS[rule](params, **OPTIONS[rule], **MSAM).step, msam_moved),
        "MSAM by hand, foreach": Baseline(MsamByHand(rule, params).step, msam_moved),
        f"SAM, {name}": Baseline(Sam(rule, params).step, moved),
        "SAM by hand, foreach": Baseline(SamByHand(rule, params).step, moved),
        f"{name}, past_gradient": Baseline(OURS[rule](params, **OPTIONS[rule]).step, our_bytes(rule, torch.float32)),
        "torch, fused": Baseline(
            TORCH[rule](params, **OPTIONS[rule], fused=True).step, 4 * (3 + 2 * BUFFERS[rule]), "any perturbation"
        ),
    }


def sam_bytes(rule: str) -> float:
    """Return the bytes per float32 parameter of both halves; the first reads x, y, g, buffers, and writes x and y."""
    buffers = BUFFERS[rule]
    norm = 4 + 4 * (buffers - 1)  # the gradient, and Adam's second moment
    return 4 * (5 + buffers) + norm + our_bytes(rule, torch.float32)


class Sam:
    """Both halves of our step, with the same gradients."""

    def __init__(self, rule: str, params: Sequence[Tensor]) -> None:
        self._optimizer = OURS[rule](params, **OPTIONS[rule], **SAM)

    def step(self) -> None:
        """Ascend, then step."""
        self._optimizer.extrapolate()
        self._optimizer.step()


class _ByHand:
    def __init__(self, rule: str, params: Sequence[Tensor]) -> None:
        self._plain = [p.detach() for p in params]
        self._params = list(params)
        self._optimizer = TORCH[rule](params, **OPTIONS[rule], fused=True)
        self._moment = _MOMENTS[rule]

    @staticmethod
    def _scaled(vectors: list[Tensor]) -> list[Tensor]:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(vectors)))
        return list(torch._foreach_mul(vectors, RHO / norm))


class SamByHand(_ByHand):
    """The perturbation is kept, and taken back before the update."""

    def step(self) -> None:
        """Ascend, return, step."""
        ascent = self._scaled([p.grad for p in self._params if p.grad is not None])
        torch._foreach_add_(self._plain, ascent)
        torch._foreach_sub_(self._plain, ascent)
        self._optimizer.step()


class MsamByHand(_ByHand):
    """As :class:`SamByHand`, along the momentum, and taken back in the next step."""

    def __init__(self, rule: str, params: Sequence[Tensor]) -> None:
        super().__init__(rule, params)
        self._kept = [torch.zeros_like(p) for p in self._plain]

    def step(self) -> None:
        """Return, step, perturb."""
        torch._foreach_add_(self._plain, self._kept)
        self._optimizer.step()
        self._kept = self._scaled([self._optimizer.state[p][self._moment] for p in self._params])
        torch._foreach_sub_(self._plain, self._kept)
