"""What ``import extrap_kernels`` imports: nothing that torch has not imported, but itself and the standard library."""

import json
import subprocess
import sys

import pytest

from bench import imports

PROGRAM = """
import json, sys
import torch

def step(optimizer_type):
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer_type([param], lr=0.1).step()

if {steps}:  # torch imports its compiler for the first step of any optimizer
    step(torch.optim.SGD)
before = set(sys.modules)
import extrap_kernels
if {steps}:
    step(extrap_kernels.ExtrapSGD)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not list its standard library")
@pytest.mark.parametrize("steps", [False, True], ids=["import", "step"])
def test_nothing_of_others_is_imported(steps):
    command = [sys.executable, "-c", PROGRAM.format(steps=steps)]
    imported = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert "extrap_kernels._C" in imported and not {"extrap_kernels.selftest", "extrap_kernels.info"} & set(imported)
    others = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others - {"torch", "extrap_kernels"} == set(), "rich, triton, matplotlib and the like are imported when used"


def test_the_benchmark_of_imports():
    torch, ours = imports.rows(rounds=1)
    assert torch["import"] == "torch" and ours["import"] == "extrap_kernels, after torch"
    assert torch["modules"] > ours["modules"] > 30 and torch["ms"] > 0 and torch["MiB"] > 0
