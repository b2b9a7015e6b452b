"""Who takes part: our optimizers, those of torch and other packages, and the update as users write it today."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from bench import twins
from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD

OURS: dict[str, Any] = {"sgd": ExtrapSGD, "adamw": ExtrapAdamW, "lars": ExtrapLARS, "lamb": ExtrapLAMB}
# Those that others have, too.
TORCH: dict[str, Any] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": twins.LR, "momentum": twins.MOMENTUM, "nesterov": True},
    "adamw": {"lr": twins.LR, "betas": twins.BETAS, "weight_decay": twins.DECAY},
}
OPTIONS |= {"lars": OPTIONS["sgd"], "lamb": OPTIONS["adamw"]}
BUFFERS = {"sgd": 1, "adamw": 2, "lars": 1, "lamb": 2}


class Peer(NamedTuple):
    """A step, the bytes for each parameter that its buffers must be read and written with, and what it does not do."""

    run: Callable[[], object]
    bytes: int
    leaves_out: str = ""


def our_bytes(rule: str, dtype: torch.dtype, **options: Any) -> int:
    """Bytes for each parameter: reads x, g and the buffers, writes x, y and the buffers; all but g and y in float32.

    What norms are taken of is read once more: g to clip it, x for the rms of noise, x and g by LARS, and all that LAMB
    makes its update of.
    """
    moved = 2 * dtype.itemsize + 8 * (1 + BUFFERS[rule])
    if "max_grad_norm" in options:
        moved += dtype.itemsize
    if options.get("noise_scale") in ("tensor", "filter"):
        moved += 4
    if rule in ("lars", "lamb"):
        moved += 4 + dtype.itemsize + (4 * BUFFERS[rule] if rule == "lamb" else 0)
    return moved


def _torch_bytes(rule: str, dtype: torch.dtype) -> int:
    """Reads p, g and the buffers, writes p and the buffers, all in the dtype of the parameters."""
    return dtype.itemsize * (3 + 2 * BUFFERS[rule])


def ours(rule: str, params: Sequence[Tensor], **options: Any) -> Peer:
    """Our optimizer with extrapolation along the past gradient; ``options`` are its keywords."""
    optimizer = OURS[rule](params, extrap_lr=twins.EXTRAP_LR, **OPTIONS[rule], **options)
    return Peer(optimizer.step, our_bytes(rule, params[0].dtype, **options))


def replayed(peer: Peer) -> Peer:
    """The same step as a CUDA graph that is replayed: without the time that Python takes to launch it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        peer.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        peer.run()
    return peer._replace(run=graph.replay)


def torchs(rule: str, params: Sequence[Tensor], **options: Any) -> Peer:
    """torch's optimizer of the same rule; ``options``: ``fused`` or ``foreach``."""
    optimizer = TORCH[rule](params, **OPTIONS[rule], **options)
    dtype = params[0].dtype
    lacks = "extrapolation" if dtype == torch.float32 else "extrapolation, float32 base and state"
    return Peer(optimizer.step, _torch_bytes(rule, dtype), lacks)


def twin(rule: str, params: Sequence[Tensor], build: Callable[[str, Sequence[Tensor]], twins.Step]) -> Peer:
    """The same update as ours in plain PyTorch, built by a function of :mod:`bench.twins`."""
    return Peer(build(rule, params), our_bytes(rule, params[0].dtype))


def add(params: Sequence[Tensor]) -> Peer:
    """``x.add_(g)`` on one tensor of the same size: as many bytes as a step, three quarters read as here."""
    x, g = (_one_tensor(params) for _ in range(2))
    return Peer(lambda: x.add_(g), 3 * x.itemsize, "everything but one addition")


def copy(params: Sequence[Tensor]) -> Peer:
    """``y.copy_(x)`` on one tensor of the same size: the bandwidth that fractions are of."""
    x, y = (_one_tensor(params) for _ in range(2))
    return Peer(lambda: y.copy_(x), 2 * x.itemsize, "everything but moving bytes")


def _one_tensor(params: Sequence[Tensor]) -> Tensor:
    return torch.ones(sum(p.numel() for p in params), dtype=params[0].dtype, device=params[0].device)


# Packages of others that step GPU tensors: what the peer is called, its class, its keywords, what it does not do.
OTHERS: dict[str, list[tuple[str, str, dict[str, Any], str]]] = {
    "sgd": [
        ("apex FusedSGD", "apex.optimizers.FusedSGD", {}, "extrapolation"),
        ("FlashOptim SGD", "flashoptim.FlashSGD", {}, "extrapolation; state of 8 bits"),
        ("bitsandbytes SGD8bit", "bitsandbytes.optim.SGD8bit", {}, "extrapolation; state of 8 bits"),
    ],
    "adamw": [
        ("apex FusedAdam", "apex.optimizers.FusedAdam", {"adam_w_mode": True}, "extrapolation"),
        ("FlashOptim AdamW", "flashoptim.FlashAdamW", {}, "extrapolation; state of 8 bits"),
        ("bitsandbytes AdamW8bit", "bitsandbytes.optim.AdamW8bit", {}, "extrapolation; state of 8 bits"),
    ],
}


def others(rule: str, params: Sequence[Tensor]) -> dict[str, Peer]:
    """Return the peers of other packages that are installed; none for CPU tensors, which they do not take."""
    found = {}
    for name, path, options, lacks in OTHERS[rule] if params[0].is_cuda else []:
        optimizer_type = _installed(path)
        if optimizer_type is not None:
            optimizer = optimizer_type(params, **OPTIONS[rule], **options)
            found[name] = Peer(optimizer.step, _torch_bytes(rule, params[0].dtype), lacks)
    return found


def _installed(path: str) -> Optional[Any]:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None
