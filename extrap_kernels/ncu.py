"""What Nsight Compute counts in the kernels of a step: sectors, memory traffic, instructions."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import torch

from extrap_kernels.sgd import ExtrapSGD

# Sectors of 32 bytes that loads and stores ask for, bytes that device memory moves, and the busy part of issue slots.
SECTORS = tuple(f"l1tex__t_sectors_pipe_lsu_mem_global_op_{op}.sum" for op in ("ld", "st"))
MEMORY = ("dram__bytes_read.sum", "dram__bytes_write.sum")
ISSUE = "smsp__issue_active.avg.pct_of_peak_sustained_active"
# Ours, of every backend, and nothing of torch's.
_KERNELS = "regex:run_kernel|step_kernel|trust_norms|direction_squares|square_sums"


def count(code: str, metrics: Sequence[str]) -> list[dict[str, str]]:
    """Run Python code and return the kernels that it launched within :func:`watched`: "Kernel Name", and the metrics.

    Raises:
        RuntimeError: there is no ``ncu``, or it failed; the message is its last line.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        raise RuntimeError("there is no ncu on PATH; install Nsight Compute, or put its folder on PATH")
    options = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]
    options += ["--profile-from-start", "off", "--kernel-name", _KERNELS, "--metrics", ",".join(metrics)]
    done = subprocess.run([ncu, *options, sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    header = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if done.returncode != 0 or header is None:
        raise RuntimeError(f"ncu says {(lines + done.stderr.splitlines() or ['nothing'])[-1]!r}")
    # Below the names of the columns are their units, and then a line for each kernel.
    _, *kernels = csv.DictReader(lines[header:])
    return kernels


def watched(action: Callable[[], object]) -> None:
    """Do something that ``ncu`` counts."""
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    action()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def number(kernel: Mapping[str, str], *metrics: str) -> float:
    """Return the sum of some metrics of a kernel."""
    return sum(float(kernel[metric].replace(",", "")) for metric in metrics)


def take_step(device: str, backend: str, numel: int) -> None:
    """Take a step of ExtrapSGD with momentum on one float32 tensor; the second of two is counted."""
    param = torch.ones(numel, device=device)
    param.grad = torch.full_like(param, 1e-3)
    optimizer = ExtrapSGD([param], lr=0.1, momentum=0.9, nesterov=True, backend=backend)
    optimizer.step()
    watched(optimizer.step)


def figure(device: torch.device, backend: str, numel: int) -> str:
    """Return what is counted in :func:`take_step`, or why nothing is."""
    step = f"from extrap_kernels.ncu import take_step; take_step({str(device)!r}, {backend!r}, {numel})"
    try:
        (kernel,) = count(step, [*SECTORS, *MEMORY, ISSUE])
    except RuntimeError as error:
        return f"unknown: {error}"
    return (
        f"{32 * number(kernel, *SECTORS) / numel:.2f} bytes a parameter, {number(kernel, *MEMORY) / numel:.2f} of them "
        f"in device memory; {number(kernel, ISSUE):.0f}% of the issue slots"
    )
