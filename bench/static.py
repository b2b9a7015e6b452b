"""``python -m bench static``: what is known of the GPU kernels without running them.

One module per backend compiles the kernels and reads registers, spills and access widths from the result. It has
``report_rows() -> list[KernelRow]``; ``launches(rule, numels) -> int``, the launches of a step on tensors of these
sizes; and ``markdown() -> str``, the table for ``docs/generated``. It may have ``slot_rows() -> list[Row]``, how busy a
model of GPUs says that a step keeps their issue slots. A module that is missing or cannot run here is
reported with the reason.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from bench import baselines, launches, report, workloads

PROVIDERS = {"cuda": "bench.static_cuda", "triton": "bench.static_triton"}
MODELS = {
    "ResNet-50": workloads.resnet50,
    "Llama-2-7B": workloads.llama2_7b,
    "Llama-3-70B": workloads.llama3_70b,
}
SLOTS = "Issue slots, a model: the share that the shortest path takes if memory is the limit"
Row = dict[str, Any]


class KernelRow(NamedTuple):
    """What a compiler made of one kernel for one GPU.

    Attributes:
        kernel: its name, with rule and dtypes.
        target: as ``sm_90``.
        registers: 32-bit registers per thread.
        spilled: spilled bytes per thread.
        access_bits: width of its loads and stores of the buffers.
        bytes: bytes moved per parameter.
        floor: the traffic floor, in bytes per parameter.
    """

    kernel: str
    target: str
    registers: int
    spilled: int
    access_bits: int
    bytes: float
    floor: float


def provider(backend: str) -> ModuleType:
    """Return the module that compiles the kernels of ``backend``.

    Raises:
        RuntimeError: the module is missing or incomplete; the message says what is missing.
    """
    name = PROVIDERS[backend]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"no rows of backend {backend!r}: {name} cannot be imported ({error})") from error
    for function in ("report_rows", "launches", "markdown"):
        if not hasattr(module, function):
            raise RuntimeError(f"no rows of backend {backend!r}: {name} has no function {function}()")
    return module


def kernel_rows() -> tuple[list[Row], list[Row], list[str]]:
    """Return a row per kernel and GPU, those about issue slots, and a line for each backend that is missing here."""
    rows: list[Row] = []
    slots: list[Row] = []
    missing = []
    for backend in PROVIDERS:
        try:
            module = provider(backend)
            rows += [{"backend": backend, **row._asdict()} for row in module.report_rows()]
            slots += module.slot_rows() if hasattr(module, "slot_rows") else []
        except RuntimeError as error:
            missing.append(str(error))
    return rows, slots, missing


def launch_rows() -> list[Row]:
    """Return the launches of a step by model and rule: ours (for each backend available here), apex's and torch's."""
    rows = []
    for model, shapes in MODELS.items():
        numels = [math.prod(shape) for shape in shapes()]
        for rule in baselines.TORCH:
            row: Row = {"model": model, "tensors": len(numels), "rule": rule}
            for backend in PROVIDERS:
                row[f"ours, {backend}"] = _our_launches(backend, rule, numels)
            fused, foreach = launches.FUSED[rule], launches.FOREACH[rule]
            row["apex"] = launches.of_step(numels, launches.APEX, fused)
            row["torch fused"] = launches.of_step(numels, launches.TORCH, fused)
            row["torch fused, CUDA 13"] = launches.of_step(numels, launches.TORCH_CUDA_13, fused)
            row["torch foreach"] = launches.of_step(numels, launches.TORCH, foreach)
            row["torch foreach, CUDA 13"] = launches.of_step(numels, launches.TORCH_CUDA_13, foreach)
            rows.append(row)
    return rows


def _our_launches(backend: str, rule: str, numels: Sequence[int]) -> str:
    try:
        return str(provider(backend).launches(rule, numels))
    except RuntimeError:
        return "not available"


def projection_rows(bandwidth: float) -> list[Row]:
    """Return the time of a step, in ms, if it moves its traffic floor at ``bandwidth`` (GB/s).

    A projection, not a measurement: no kernel reaches the bandwidth of its GPU's data sheet.
    """
    rows = []
    for model, shapes in MODELS.items():
        numel = workloads.numel_of(shapes())
        for rule in baselines.TORCH:
            row: Row = {"model": model, "parameters": numel, "rule": rule}
            for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
                per_parameter = baselines.our_bytes(rule, dtype)
                row[f"{name}, bytes a parameter"] = per_parameter
                row[f"{name}, projected ms"] = per_parameter * numel / bandwidth / 1e6
            rows.append(row)
    return rows


def sections(bandwidth: float) -> list[tuple[str, list[Row]]]:
    """Return the tables of the report with their titles; a title without rows is a note about a missing backend."""
    rows, slots, missing = kernel_rows()
    projection = f"Projection, not measured: time of a step at {bandwidth:g} GB/s and the traffic floor"
    return [
        ("Kernels, as compiled", rows),
        *([(SLOTS, slots)] if slots else []),
        *((line, []) for line in missing),
        ("Launches of a step", launch_rows()),
        (projection, projection_rows(bandwidth)),
    ]


def write_docs(folder: Path) -> list[str]:
    """Write the table of each backend's kernels between the marks of its page; return a line about each."""
    lines = []
    for backend in PROVIDERS:
        page = folder / f"{backend}_kernels.md"
        try:
            report.write_between_marks(page, provider(backend).markdown())
        except RuntimeError as error:
            lines.append(f"Not written: {page}, {error}")
        else:
            lines.append(f"Written: {page}")
    return lines
