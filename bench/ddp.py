"""``python -m bench.ddp``: local extrapolation under DistributedDataParallel against plain DDP with fused SGD.

Two gloo processes on this machine, one thread each, 25 million parameters, interleaved.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bench.measure import Timing, interleaved
from extrap_kernels import ExtrapSGD
from extrap_kernels.distributed import LocalGradients, register_local_gradient_hook

LAYERS, WIDTH, BATCH = 24, 1024, 4
PARAMETERS = LAYERS * WIDTH**2
SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "nesterov": True}
PROCESSES = 2


class _Contender:
    """A model under DDP with its optimizer, and the bytes both hold besides parameters and gradients."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
        self._model = DistributedDataParallel(model, gradient_as_bucket_view=True)
        self._local: Optional[LocalGradients] = None
        self._optimizer: torch.optim.Optimizer
        if kind == "DDP, torch SGD fused":
            self._optimizer = torch.optim.SGD(model.parameters(), fused=True, **SGD)
        else:
            self._optimizer = extrapolating = ExtrapSGD(model.parameters(), **SGD)
            if "hook" in kind:
                self._local = register_local_gradient_hook(self._model, extrapolating)
        self._inputs = torch.randn(BATCH, WIDTH)

    def backward(self) -> None:
        self._optimizer.zero_grad()
        self._model(self._inputs).square().mean().backward()

    def step(self) -> None:
        self._optimizer.step()

    def nbytes(self) -> dict[str, int]:
        states = self._optimizer.state.values()
        tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        return {"state": sum(t.nbytes for t in tensors), "local gradients": self._local.nbytes if self._local else 0}


KINDS = ("DDP, torch SGD fused", "DDP, ExtrapSGD", "DDP, hook, ExtrapSGD")


def _measure(rank: int, store: str, rounds: int, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PROCESSES)
    contenders = {kind: _Contender(kind) for kind in KINDS}
    phases: dict[str, Any] = {}
    for kind, contender in contenders.items():
        phases[f"{kind}: backward"] = contender.backward
        phases[f"{kind}: step"] = contender.step
    gradient, copy = torch.randn(2, PARAMETERS).unbind()
    few = torch.zeros(2 * LAYERS, dtype=torch.float64)
    phases["copy of one gradient"] = lambda: copy.copy_(gradient)
    phases["all-reduce of one gradient"] = lambda: dist.all_reduce(gradient)
    phases["all-reduce of the norms"] = lambda: dist.all_reduce(few)
    timings = interleaved(phases, rounds, warmup=4)
    if rank == 0:
        results.put((timings, {kind: contender.nbytes() for kind, contender in contenders.items()}))
    dist.barrier()
    dist.destroy_process_group()


def measure(rounds: int) -> tuple[dict[str, Timing], dict[str, dict[str, int]]]:
    """Return the times of all phases and the bytes of each contender, as the first of two processes measured them."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", rounds, results)
        workers = [context.Process(target=_measure, args=(rank, *arguments)) for rank in range(PROCESSES)]
        for worker in workers:
            worker.start()
        measured: tuple[dict[str, Timing], dict[str, dict[str, int]]] = results.get()
        for worker in workers:
            worker.join()
    return measured


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.ddp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds (default: 21)")
    parser.add_argument("--out", type=Path, default=Path("results/ddp.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    timings, sizes = measure(arguments.rounds)
    table = Table(title=f"{PARAMETERS:,} parameters, {PROCESSES} processes of one thread, gloo")
    for heading in ("", "ms", "quartiles"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, timing in timings.items():
        quartiles = f"{timing.lower * 1e3:.2f} to {timing.upper * 1e3:.2f}"
        table.add_row(name, f"{timing.median * 1e3:.2f}", quartiles)
    console = Console(width=120)
    console.print(table)
    for kind, nbytes in sizes.items():
        console.print(
            f"{kind}: " + ", ".join(f"{n / PARAMETERS:.2f} bytes a parameter of {what}" for what, n in nbytes.items())
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"seconds": {name: asdict(timing) for name, timing in timings.items()}, "bytes": sizes}
    arguments.out.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
