"""AdamW on the host, as CPU offload steps it, against DeepSpeed's CPUAdam and torch's fused AdamW.

DeepSpeed has its rows if it is installed (``pip install deepspeed``); it compiles CPUAdam when that is first made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench import baselines, twins
from bench.baselines import Baseline

MOMENTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "8 bits": torch.uint8}


def rows(params: Sequence[Tensor]) -> dict[str, Baseline]:
    """Return the rows of a table."""
    found = {
        f"ExtrapAdamW, moments in {name}": baselines.ours("adamw", params, state_dtype=dtype)
        for name, dtype in MOMENTS.items()
    }
    found["ExtrapAdamW, no extrapolation"] = baselines.ours("adamw", params, extrapolation=None)
    return {**found, **_others(params)}


def rows_of_large(params: Sequence[Tensor]) -> dict[str, Baseline]:
    """Return those that fit the memory together with half a billion parameters."""
    ours = baselines.ours("adamw", params, state_dtype=torch.bfloat16)
    return {"ExtrapAdamW, moments in bf16": ours, **_others(params, with_master=False)}


def _others(params: Sequence[Tensor], *, with_master: bool = True) -> dict[str, Baseline]:
    found = {"torch, fused": baselines.torchs("adamw", params, fused=True)}
    cpu_adam = baselines.installed("deepspeed.ops.adam.DeepSpeedCPUAdam")
    if cpu_adam is None:
        return found
    low = params[0].dtype != torch.float32
    lacks = "extrapolation, float32 base" if low else "extrapolation"
    # Reads the parameter, the gradient and two float32 moments, and writes all but the gradient.
    found["DeepSpeed CPUAdam"] = Baseline(_cpu_adam(cpu_adam, params), 3 * params[0].itemsize + 16, lacks)
    if low and with_master:
        found["DeepSpeed CPUAdam, fp32 master"] = _with_master(cpu_adam, params)
    return found


def _cpu_adam(cpu_adam: Callable[..., torch.optim.Optimizer], params: Sequence[Tensor]) -> Callable[[], object]:
    return cpu_adam(params, lr=twins.LR, betas=twins.BETAS, weight_decay=twins.DECAY).step


def _with_master(cpu_adam: Callable[..., torch.optim.Optimizer], params: Sequence[Tensor]) -> Baseline:
    """Step float32 masters, whose gradients are in float32 as well, and round them to ``params``."""
    masters = []
    for param in params:
        masters.append(param.detach().float().requires_grad_())
        assert param.grad is not None
        masters[-1].grad = param.grad.float()
    step = _cpu_adam(cpu_adam, masters)
    targets, sources = [param.detach() for param in params], [master.detach() for master in masters]

    def run() -> None:
        step()
        torch._foreach_copy_(targets, sources)

    return Baseline(run, 28 + 4 + params[0].itemsize, "extrapolation")
