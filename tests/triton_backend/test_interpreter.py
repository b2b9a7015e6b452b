"""The tests of backend `triton` under Triton's interpreter, which must be asked for before Triton is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.usefixtures("interpreter"),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="is the process that the others are run in"),
    # The longest tests of all: pytest-xdist begins with groups, so that no process waits for these in the end.
    pytest.mark.xdist_group("interpreter"),
]
PARITY = "triton_backend/test_triton_parity.py"
BINDING = "triton_backend/test_triton_binding.py"
BLOCKS = "triton_backend/test_triton_blocks.py"
SHARDS = ("triton_backend/test_triton_shards.py", "distributed/test_sharded_triton.py")


def run(*arguments):
    """Run tests under the interpreter; return how many passed, all of them."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore:::triton", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout.splitlines()[-1]
    return int(re.search(r"(\d+) passed", result.stdout)[1])


def test_parity_with_the_reference():
    assert run(PARITY, "-m", "not slow") >= 20


def test_binding():
    assert run(BINDING) >= 12


def test_blocks():
    assert run(BLOCKS) >= 15


@pytest.mark.slow
def test_blocks_of_all_backends():
    assert run("test_blocks.py", "-k", "triton") > 60


def test_sharded_parameters():
    assert run(*SHARDS, "-m", "not slow") > 40


# One of each kind; all of them run by `TRITON_INTERPRET=1 pytest tests -k triton`, which takes long.
CHOSEN = [
    "test_amp.py::test_steps_are_those_of_an_unscaled_run[triton-(2,)-float32-extragradient]",
    "test_clipping.py::test_norm_of_gradients_of_any_layout[triton-with_gaps]",
    "test_direction_norm.py::test_distance_is_the_radius[triton-adam-past_gradient]",
    "test_direction_norm.py::test_momentum_is_divided_by_the_norm_before_the_step[triton-ExtrapSGD-uint8]",
    "test_capturable.py::test_tensors_give_the_bits_of_numbers[triton-ExtrapAdamW]",
    "test_capture.py::test_memory_of_a_plan_outlives_it_if_it_was_captured[True-triton]",
    "test_edge_cases.py::test_default_device_does_not_matter[triton]",
    "test_blocks.py::test_norms_read_blocks[triton-lamb]",
    "test_blocks.py::test_parts_are_stored_as_the_whole[triton-uniform]",
    "test_blocks.py::test_the_first_half_of_a_step_and_a_skipped_step_change_no_byte[triton]",
]
MORE = [
    "test_oracle_parity.py::test_rules_follow_the_oracle[triton-sgd-nesterov-past_gradient-gaussian-tensor]",
    *(
        f"test_oracle_parity.py::test_dtypes_follow_the_oracle[triton-{case}]"
        for case in ("lars-float64-extragradient-None", "lamb-bfloat16-extragradient-None", "adamw-bfloat16-None-None")
    ),
    "test_amp.py::test_steps_are_those_of_an_unscaled_run[triton-(0, 1, 4)-bfloat16-noisy]",
    "test_amp.py::test_steps_are_those_of_an_unscaled_run[triton-(2,)-float32-lamb]",
    "test_amp.py::test_any_scale_divides_the_gradients_and_the_local_ones[triton]",
    "test_clipping.py::test_equals_clip_grad_norm_of_torch[triton-inf-float32]",
    "test_clipping.py::test_groups_are_clipped_by_the_norm_of_all[triton-lars-float32-past_gradient]",
]


def test_suite_of_all_backends():
    assert run(*CHOSEN) == len(CHOSEN)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_more_of_the_suite_of_all_backends():
    assert run(*MORE) == len(MORE)


@pytest.mark.slow
def test_nothing_outside_is_touched():
    guarded = "triton and test_nothing_outside and bfloat16"
    assert run("test_memory_guards.py", "-k", f"{guarded} and (uniform-filter or extragradient)") == 4


WITHOUT_NATIVE_MODULE = """
import sys

sys.modules["extrap_kernels._C"] = None  # importing it raises ImportError
import torch
from extrap_kernels import ExtrapSGD

param = torch.nn.Parameter(torch.ones(2))
optimizer = ExtrapSGD([param], lr=0.25, backend="triton")
for _ in range(2):
    param.grad = torch.ones(2)
    optimizer.step()
    plan = optimizer.stepper._plans[0, None]
assert (param == 0.25).all()
param.grad = torch.ones(2)
optimizer.step()
assert optimizer.stepper._plans[0, None] is plan, "planned anew for every step"
"""


def test_without_native_module():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", WITHOUT_NATIVE_MODULE], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_more_of_sharded_parameters():
    assert run(*SHARDS, "-m", "slow") > 200


@pytest.mark.slow
def test_parity_of_every_rule_and_dtype():
    """Under one noise, and extragradient; all of them together are exhaustive."""
    rules = "test_rules and (past_gradient-uniform-filter or past_update-uniform-filter or extragradient)"
    dtypes = "test_dtypes and past_update-uniform-filter"
    assert run(PARITY, "-m", "slow", "-k", f"({rules}) or ({dtypes})") > 80


@pytest.mark.slow
@pytest.mark.exhaustive
def test_full_parity_with_the_reference():
    assert run(PARITY, "-m", "slow") > 500
