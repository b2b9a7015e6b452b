"""``python -m bench profile``: what the kernels do on the GPU of this machine, as Nsight Compute counts it.

From the counts follows a model of other GPUs, :mod:`bench.gpu_model`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from bench import baselines
from bench.gpu_model import GPUS, percent
from extrap_kernels import backends, ncu
from extrap_kernels.ncu import ISSUE, MEMORY, SECTORS

NUMEL, COLUMNS = 32_000_000, 1024  # rows that blocks divide
TIME, REGISTERS = "gpu__time_duration.sum", "launch__registers_per_thread"
INSTRUCTIONS, DOUBLES = "smsp__inst_executed.sum", "smsp__inst_executed_pipe_fp64.sum"
Row = dict[str, Any]


class Case(NamedTuple):
    """A step; the optimizer's name in :mod:`bench.baselines`."""

    rule: str
    dtype: torch.dtype
    options: dict[str, Any]

    @property
    def title(self) -> str:
        """The optimizer, the dtype, and the options."""
        dtype = {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.dtype]
        options = [f"{option}={value}".replace("torch.", "") for option, value in self.options.items()]
        return ", ".join([baselines.OURS[self.rule].__name__, dtype, *options])


def cases() -> list[Case]:
    """Return the steps that are counted."""
    variants: list[tuple[str, dict[str, Any]]] = [
        *(
            (rule, options)
            for rule in ("sgd", "adamw")
            for options in (
                {},
                {"noise": "uniform"},
                {"noise": "gaussian"},
                {"state_dtype": torch.bfloat16},
                {"state_dtype": torch.uint8},
            )
        ),
        ("sgd", {"noise": "gaussian", "noise_scale": "filter"}),
        ("sgd", {"max_grad_norm": 1.0}),
        ("lars", {}),
        ("lamb", {}),
    ]
    return [Case(rule, dtype, options) for dtype in (torch.float32, torch.bfloat16) for rule, options in variants]


def take_steps(backend: str) -> None:
    """Take two steps of each case on a matrix; the second one is counted."""
    for case in cases():
        param = torch.randn(NUMEL // COLUMNS, COLUMNS, device="cuda").to(case.dtype)
        param.grad = torch.randn_like(param)
        step = baselines.ours(case.rule, [param], backend=backend, **case.options).run
        step()
        ncu.watched(step)


def _row(backend: str, title: str, kernel: dict[str, str]) -> Row:
    sectors = 32 * ncu.number(kernel, *SECTORS) / NUMEL
    instructions, doubles = (32 * ncu.number(kernel, metric) / NUMEL for metric in (INSTRUCTIONS, DOUBLES))
    seconds = ncu.number(kernel, TIME) / 1e9
    row: Row = {
        "backend": backend,
        "kernel": title,
        "µs": seconds * 1e6,
        "B/param, sectors": sectors,
        "B/param, memory": ncu.number(kernel, *MEMORY) / NUMEL,
        "GB/s": ncu.number(kernel, *MEMORY) / seconds / 1e9,
        "registers": int(ncu.number(kernel, REGISTERS)),
        "instructions": instructions,
        "fp64": doubles,
        "issue slots": f"{ncu.number(kernel, ISSUE):.0f}%",
    }
    for gpu in GPUS:
        row[f"model: slots of {gpu.name}"] = percent(gpu.issue_share(sectors, instructions))
        row[f"fp64 of {gpu.name}"] = percent(gpu.double_share(sectors, doubles))
    return row


def rows() -> list[Row]:
    """Return a row for each kernel of each case, for both backends of GPUs.

    Raises:
        RuntimeError: the GPU, the kernels or ``ncu`` are missing, or ``ncu`` failed.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device; run this on a machine with an NVIDIA GPU and its driver")
    reasons = {backend: backends.missing_reason(backend) for backend in ("cuda", "triton")}
    available = [backend for backend, reason in reasons.items() if reason is None]
    if not available:
        raise RuntimeError("; ".join(f"backend {backend!r}: {reason}" for backend, reason in reasons.items()))
    found = []
    metrics = [TIME, *SECTORS, *MEMORY, REGISTERS, INSTRUCTIONS, DOUBLES, ISSUE]
    for backend in available:
        kernels = iter(ncu.count(f"from bench.profile import take_steps; take_steps({backend!r})", metrics))
        for case in cases():
            for kernel in kernels:
                is_step = "step" in kernel["Kernel Name"].lower()
                found.append(_row(backend, case.title if is_step else f"{case.title}: sums", kernel))
                if is_step:
                    break
    return found
