"""Backend `triton` on sharded parameters in real processes, where Triton's interpreter is asked for.

The interpreter needs a process of its own: see ../triton_backend/test_interpreter.py.
"""

import pytest
import sharded_worker
import torch
from helpers import DEVICES
from test_sharded import STEPS

pytestmark = pytest.mark.skipif(DEVICES.get("triton") != "cpu", reason="needs TRITON_INTERPRET=1 before Python starts")
QUICK = ("rows and columns", "uniform, tensor")
CASES = [(spread, step) for spread in sharded_worker.SPREADS for step in STEPS]


@pytest.mark.parametrize(
    "spread, step", [pytest.param(*case, marks=() if case == QUICK else pytest.mark.slow) for case in CASES]
)
def test_same_bits_as_one_process(processes, spread, step):
    empty = processes(4).run(sharded_worker.step_both, *STEPS[step], spread, torch.float32, "triton")
    assert any(empty) == (spread != "replicas")
