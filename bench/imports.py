"""What ``import extrap_kernels`` costs beyond ``import torch``: time, resident memory and modules, in new processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

Row = dict[str, Any]

_PROGRAM = """
import json, os, sys, time

def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def cost(name):
    modules, memory, start = len(sys.modules), resident(), time.perf_counter()
    __import__(name)
    return time.perf_counter() - start, resident() - memory, len(sys.modules) - modules

print(json.dumps({name: cost(name) for name in ("torch", "extrap_kernels")}))
"""


def _once() -> dict[str, list[float]]:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def rows(rounds: int) -> list[Row]:
    """Return a row for torch and one for this package after it: medians of ``rounds`` processes.

    The first process warms up: it writes bytecode and fills the caches of files.
    """
    _once()
    costs = [_once() for _ in range(rounds)]
    found = []
    for name in costs[0]:
        seconds, memory, modules = (statistics.median(values) for values in zip(*(cost[name] for cost in costs)))
        title = name if name == "torch" else f"{name}, after torch"
        found.append({"import": title, "ms": seconds * 1e3, "MiB": memory / 2**20, "modules": int(modules)})
    return found
