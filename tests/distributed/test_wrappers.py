"""ZeroRedundancyOptimizer and post-local SGD."""

import pytest
import torch
import wrapper_worker
from helpers import assert_same_bits

STEPS = {
    "sgd": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "adamw": ("adamw", {"weight_decay": 0.1}),
    "lamb": ("lamb", {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("kind", ["ours", "torch's"])
@pytest.mark.parametrize("step", STEPS)
def test_zero_steps_as_one_optimizer(processes, backend, step, kind):
    processes(2).run(wrapper_worker.zero_beside_whole, *STEPS[step], backend, kind)


def test_zero_saves_bases_in_24_bits(processes, backend):
    one, other = processes(2).run(wrapper_worker.zero_in_24_bits, backend)
    assert_same_bits(one, other)


def test_zero_clips_by_the_norm_of_all(processes, backend):
    processes(2).run(wrapper_worker.zero_beside_whole, "sgd", {"max_grad_norm": 0.1}, backend, "ours")


def test_zero_divides_by_the_norm_of_all(processes, backend):
    options = {"extrap_norm": "global", "extrap_lr": 0.3}
    for rule, along in (("adamw", "momentum"), ("sgd", "past_gradient")):
        step = (rule, {**options, "extrapolation": along})
        processes(2).run(wrapper_worker.zero_beside_whole, *step, backend, "ours")


def test_zero_refusals(processes):
    for messages in processes(2).run(wrapper_worker.zero_refusals):
        assert "optimizer_class is SGD" in messages[0]
        assert "Invalid extrapolation value: 'extragradient'" in messages[1]
        assert "Invalid overlap_with_ddp value: True" in messages[2]


def test_averages_base_iterates_and_keeps_displacements(processes, backend):
    """Due after steps 2, 5 and 8; every other step is that of a worker alone."""
    results = processes(2).run(wrapper_worker.post_local, backend)
    for t, both in enumerate(zip(*(history for history, _, _ in results))):
        before, after = zip(*both)
        if t not in (2, 5, 8):
            assert_same_bits(after, before)
            continue
        assert_same_bits(after[0][0], after[1][0])
        for (old_x, old_y), (new_x, new_y) in zip(before, after):
            for k, (x, y) in enumerate(zip(new_x, new_y)):
                mean = sum(bases[k].double() for bases, _ in before) / 2
                torch.testing.assert_close(x.double(), mean, rtol=1e-6, atol=1e-7)
                moved = mean + old_y[k].double() - old_x[k].double()
                torch.testing.assert_close(y.double(), moved, rtol=1e-6, atol=1e-6)
                assert not torch.equal(x, y)


def test_averages_in_eval_mode(processes, backend):
    """Then the parameters hold the mean; the points come back displaced, and a second mean changes nothing."""
    (_, first, (x, y)), (_, second, (other_x, other_y)) = processes(2).run(wrapper_worker.post_local, backend)
    assert_same_bits(first, second)
    assert_same_bits(x, other_x)
    assert_same_bits(x, first)
    assert all(not torch.equal(a, b) for a, b in zip(y, other_y))
