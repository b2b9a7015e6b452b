"""DeepSpeed: train and eval mode reach the model, through the masters that DeepSpeed steps in its place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from extrap_kernels import flat
from extrap_kernels.optimizer import ExtrapOptimizer


def connect(engine: Any) -> None:
    """Let ``eval()``, ``train()`` and ``base_parameters()`` of the optimizer given to DeepSpeed reach the model.

    With bf16 or fp16, and under ZeRO, DeepSpeed steps masters of its own, of which the model's weights are copies.
    Without this call, a change of mode raises. Under ZeRO it is communication: make it on all processes.

    Args:
        engine: what ``deepspeed.initialize(optimizer=...)`` returned, on stage 0, 1 or 2.

    Raises:
        TypeError: the engine's optimizer is not one of this package.
        RuntimeError: a stage, or an option, with which the result would be wrong; the message says why.
    """
    wrapper = engine.optimizer
    optimizer = getattr(wrapper, "optimizer", wrapper)
    if not isinstance(optimizer, ExtrapOptimizer):
        raise TypeError(f"the engine's optimizer is a {type(optimizer).__name__}; it must be one of extrap_kernels")
    _check(optimizer)
    if wrapper is optimizer:
        return  # stage 0 in float32: the optimizer steps the model's own parameters
    if hasattr(wrapper, "update_lp_params") and not getattr(wrapper, "zenflow", False):
        _check_flat(optimizer)
        optimizer.on_mode_change = wrapper.update_lp_params
    elif hasattr(wrapper, "fp16_groups") and hasattr(wrapper, "fp32_groups"):
        optimizer.on_mode_change = lambda: _copy_masters(wrapper)
    else:
        raise RuntimeError(
            f"{type(wrapper).__name__} of DeepSpeed has no way to put masters into the model between steps, so the "
            "model could not be evaluated at the base iterate; use ZeRO stage 1 or 2, or FSDP2 (fully_shard)"
        )


def _check(optimizer: ExtrapOptimizer) -> None:
    if any(group["extrapolation"] == "extragradient" for group in optimizer.param_groups):
        raise RuntimeError(
            "Invalid extrapolation value: 'extragradient' under DeepSpeed, whose engine puts masters into the model "
            "only after whole steps; choose 'past_gradient'"
        )


def _check_flat(optimizer: ExtrapOptimizer) -> None:
    for number, group in enumerate(optimizer.param_groups):
        flat.check_options(optimizer, group, f"group {number}")
    # DeepSpeed steps each group as if it were the only one, so that all draw the noise of the first.
    seeds = Counter(group["seed"] for group in optimizer.param_groups if group["noise"] is not None)
    shared = [seed for seed, count in seeds.items() if count > 1]
    if shared:
        raise RuntimeError(
            f"several param groups have noise of seed {shared[0]}; under ZeRO they would get the same numbers: give "
            "each group a seed of its own"
        )


@torch.no_grad()
def _copy_masters(wrapper: Any) -> None:
    for params, masters in zip(wrapper.fp16_groups, wrapper.fp32_groups):
        for param, master in zip(params, masters):
            param.copy_(master)
