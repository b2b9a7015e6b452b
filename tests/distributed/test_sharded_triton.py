"""Backend `triton` on sharded parameters in real processes, where Triton's interpreter is asked for.

The interpreter needs a process of its own: see ../triton_backend/test_interpreter.py.
"""

import pytest
import sharded_worker
import torch
from helpers import DEVICES
from test_sharded import STEPS

pytestmark = pytest.mark.skipif(DEVICES.get("triton") != "cpu", reason="needs TRITON_INTERPRET=1 before Python starts")


def check(processes, spread, step, steps):
    empty = processes(4).run(sharded_worker.step_both, *STEPS[step], spread, torch.float32, "triton", steps)
    assert any(empty) == (spread != "replicas")


def test_first_step_has_the_bits_of_one_process(processes):
    check(processes, "rows and columns", "lars", steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spread", sharded_worker.SPREADS)
def test_same_bits_as_one_process(processes, spread, step):
    check(processes, spread, step, steps=2)
