"""What Nsight Compute counts in a step on a GPU: sectors, memory traffic and issue slots."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys

import torch

from extrap_kernels.sgd import ExtrapSGD

# Sectors of 32 bytes that loads and stores ask for, bytes that device memory moves, and the busy part of issue slots.
_LOADS, _STORES = (f"l1tex__t_sectors_pipe_lsu_mem_global_op_{op}.sum" for op in ("ld", "st"))
_MEMORY = "dram__bytes_read.sum", "dram__bytes_write.sum"
_ISSUE = "smsp__issue_active.avg.pct_of_peak_sustained_active"


def profiled_step(device: str, backend: str, numel: int) -> None:
    """Take a step of ExtrapSGD with momentum on one float32 tensor; only this step is seen by a profiler."""
    param = torch.ones(numel, device=device)
    param.grad = torch.full_like(param, 1e-3)
    optimizer = ExtrapSGD([param], lr=0.1, momentum=0.9, nesterov=True, backend=backend)
    optimizer.step()
    torch.cuda.synchronize(device)
    torch.cuda.profiler.start()
    optimizer.step()
    torch.cuda.synchronize(device)
    torch.cuda.profiler.stop()


def counted(device: torch.device, backend: str, numel: int) -> str:
    """Return what ``ncu`` counts in :func:`profiled_step`, or why it counts nothing."""
    ncu = shutil.which("ncu")
    if ncu is None:
        return "unknown: there is no ncu on PATH"
    step = f"from extrap_kernels.sectors import profiled_step; profiled_step({str(device)!r}, {backend!r}, {numel})"
    metrics = ",".join([_LOADS, _STORES, *_MEMORY, _ISSUE])
    options = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--profile-from-start"]
    command = [ncu, *options, "off", "--metrics", metrics, sys.executable, "-c", step]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    header = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if done.returncode != 0 or header is None:
        return f"unknown: ncu says {(lines + done.stderr.splitlines() or ['nothing'])[-1]!r}"
    # Below the names of the columns are their units, and then a line for each kernel.
    _, *kernels = csv.DictReader(lines[header:])

    def total(*names: str) -> float:
        return sum(float(kernel[name].replace(",", "")) for kernel in kernels for name in names)

    return (
        f"{32 * total(_LOADS, _STORES) / numel:.2f} bytes a parameter, {total(*_MEMORY) / numel:.2f} of them in device "
        f"memory; {total(_ISSUE) / len(kernels):.0f}% of the issue slots"
    )
