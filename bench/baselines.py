"""What is timed: our optimizers and their baselines, which are those of torch and others and the update by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from bench import twins
from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD
from extrap_kernels.options import DEFAULTS
from extrap_kernels.state.blocks import BLOCK
from extrap_kernels.state.layout import StateLayout

OURS: dict[str, Any] = {"sgd": ExtrapSGD, "adamw": ExtrapAdamW, "lars": ExtrapLARS, "lamb": ExtrapLAMB}
# Rules that torch has as well.
TORCH: dict[str, Any] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": twins.LR, "momentum": twins.MOMENTUM, "nesterov": True},
    "adamw": {"lr": twins.LR, "betas": twins.BETAS, "weight_decay": twins.DECAY},
}
OPTIONS |= {"lars": OPTIONS["sgd"], "lamb": OPTIONS["adamw"]}
BUFFERS = {"sgd": 1, "adamw": 2, "lars": 1, "lamb": 2}


class Baseline(NamedTuple):
    """A step to time, its traffic floor in bytes per parameter, and what it does less than ours."""

    run: Callable[[], object]
    bytes: float
    does_less: str = ""


def our_bytes(rule: str, dtype: torch.dtype, **options: Any) -> float:
    """Return the bytes per parameter that a step reads and writes.

    It reads x, g and the buffers and writes x, y and the buffers. x is in float32 or in 24 bits; where no base is
    stored, x is the parameter itself. Norms need a second read of what they are taken of: g for clipping, x for the rms
    of noise, x and g for LARS, and x, g and the buffers for LAMB; for a direction, the momentum, or g and Adam's second
    moment.
    """
    state_dtype = options.get("state_dtype", torch.float32)
    # Codes and their exponents. Vectors and small matrices stay in float32, which is not counted here.
    buffers = BUFFERS[rule] * (1 + 1 / BLOCK if state_dtype == torch.uint8 else state_dtype.itemsize)
    group = {**DEFAULTS, **OPTIONS[rule], **options}
    layout = StateLayout.of(OURS[rule].rule.SPEC, group, dtype, blocks=True)
    base = 3 if layout.splits_base else 4
    moved = 2 * dtype.itemsize + (2 * base if layout.has_base else dtype.itemsize) + 2 * buffers
    if "max_grad_norm" in options:
        moved += dtype.itemsize
    if options.get("extrap_norm") is not None:
        of_one = buffers / BUFFERS[rule]
        along_momentum = options.get("extrapolation") == "momentum"
        # The gradient, and Adam's second moment.
        moved += of_one if along_momentum else dtype.itemsize + (of_one if BUFFERS[rule] == 2 else 0)
    if options.get("noise_scale") in ("tensor", "filter"):
        moved += base
    if rule in ("lars", "lamb"):
        moved += base + dtype.itemsize + (buffers if rule == "lamb" else 0)
    return moved


def _torch_bytes(rule: str, dtype: torch.dtype) -> int:
    """Return the same for torch: p, g and the buffers are read, p and the buffers written, all in the dtype of p."""
    return dtype.itemsize * (3 + 2 * BUFFERS[rule])


def ours(rule: str, params: Sequence[Tensor], **options: Any) -> Baseline:
    """Our optimizer with extrapolation along the past gradient; ``options`` are its keywords."""
    optimizer = OURS[rule](params, extrap_lr=twins.EXTRAP_LR, **OPTIONS[rule], **options)
    return Baseline(optimizer.step, our_bytes(rule, params[0].dtype, **options))


def replayed(baseline: Baseline) -> Baseline:
    """Return the same step replayed as a CUDA graph, which excludes the time that Python takes to launch it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        baseline.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        baseline.run()
    return baseline._replace(run=graph.replay)


def torchs(rule: str, params: Sequence[Tensor], **options: Any) -> Baseline:
    """torch's optimizer of the same rule; ``options``: ``fused`` or ``foreach``."""
    optimizer = TORCH[rule](params, **OPTIONS[rule], **options)
    dtype = params[0].dtype
    lacks = "extrapolation" if dtype == torch.float32 else "extrapolation, float32 base and state"
    return Baseline(optimizer.step, _torch_bytes(rule, dtype), lacks)


def twin(rule: str, params: Sequence[Tensor], build: Callable[[str, Sequence[Tensor]], twins.Step]) -> Baseline:
    """The same update as ours in plain PyTorch, built by a function of :mod:`bench.twins`."""
    return Baseline(build(rule, params), our_bytes(rule, params[0].dtype))


def add(params: Sequence[Tensor]) -> Baseline:
    """``x.add_(g)`` on one tensor of the same size: two reads and one write per element."""
    x, g = (_one_tensor(params) for _ in range(2))
    return Baseline(lambda: x.add_(g), 3 * x.itemsize, "everything but one addition")


def copy(params: Sequence[Tensor]) -> Baseline:
    """``y.copy_(x)`` on one tensor of the same size: the bandwidth that the tables compare with."""
    x, y = (_one_tensor(params) for _ in range(2))
    return Baseline(lambda: y.copy_(x), 2 * x.itemsize, "everything but moving bytes")


def _one_tensor(params: Sequence[Tensor]) -> Tensor:
    return torch.ones(sum(p.numel() for p in params), dtype=params[0].dtype, device=params[0].device)


# Other packages, for GPU tensors: the name of the baseline, its class, its keywords, what it does less.
OTHERS: dict[str, list[tuple[str, str, dict[str, Any], str]]] = {
    "sgd": [
        ("apex FusedSGD", "apex.optimizers.FusedSGD", {}, "extrapolation"),
        ("FlashOptim SGD", "flashoptim.FlashSGD", {}, "extrapolation; 8-bit state"),
        ("bitsandbytes SGD8bit", "bitsandbytes.optim.SGD8bit", {}, "extrapolation; 8-bit state"),
    ],
    "adamw": [
        ("apex FusedAdam", "apex.optimizers.FusedAdam", {"adam_w_mode": True}, "extrapolation"),
        ("FlashOptim AdamW", "flashoptim.FlashAdamW", {}, "extrapolation; 8-bit state"),
        ("bitsandbytes AdamW8bit", "bitsandbytes.optim.AdamW8bit", {}, "extrapolation; 8-bit state"),
    ],
}


def others(rule: str, params: Sequence[Tensor]) -> dict[str, Baseline]:
    """Return the baselines of other installed packages; for CPU tensors there are none."""
    found = {}
    for name, path, options, lacks in OTHERS[rule] if params[0].is_cuda else []:
        optimizer_type = installed(path)
        if optimizer_type is not None:
            optimizer = optimizer_type(params, **OPTIONS[rule], **options)
            found[name] = Baseline(optimizer.step, _torch_bytes(rule, params[0].dtype), lacks)
    return found


def installed(path: str) -> Optional[Any]:
    """Return what a package has under a dotted path, or None if the package is missing."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None
