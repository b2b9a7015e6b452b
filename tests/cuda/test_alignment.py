"""Where the tensors begin in memory decides which thread takes which element, and nothing else."""

import helpers
import pytest
import torch

pytestmark = helpers.needs_emulation
SHAPES = ((37,), (20, 300), (9, 5000), (2, 17_000), (5, 4, 3, 7))
OPTIONS = [{}, {"noise": "gaussian", "noise_scale": "filter", "max_grad_norm": 1.0}]


def shifted(tensor, offset):
    """A copy that begins so many elements after a multiple of 16 bytes."""
    memory = torch.empty(tensor.numel() + offset, dtype=tensor.dtype)
    return memory.as_strided(tensor.shape, tensor.stride(), offset).copy_(tensor)


def run(rule, dtype, options, offset, backend="cuda-emulated"):
    values = [helpers.random_like(torch.empty(shape, dtype=dtype), k) for k, shape in enumerate(SHAPES)]
    values[-1] = helpers.channels_last(values[-1])  # whose rows are interleaved after the permutation
    params = [torch.nn.Parameter(shifted(value, offset)) for value in (*values[:-1], values[-1].transpose(0, 3))]
    optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, **options)
    for t in range(3):
        for k, p in enumerate(params):
            p.grad = shifted(torch.empty_like(p).copy_(helpers.random_like(p, 10 * t + k)), offset)
        optimizer.step()
        for p in params:
            state = optimizer.state[p]
            state.update({name: shifted(value, offset) for name, value in state.items() if name != "step"})
    return helpers.snapshot(optimizer)


@pytest.mark.parametrize("options", OPTIONS, ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("rule", ["adamw", "lars", "lamb"])
def test_no_bit_depends_on_alignment(rule, dtype, options):
    helpers.assert_same_bits(run(rule, dtype, options, 1), run(rule, dtype, options, 0))


@pytest.mark.parametrize("rule", ["adamw", "lamb"])
def test_rows_of_any_length_are_those_of_the_reference(rule):
    """Whether a warp sums a row, a block, or several of them."""
    actual, _ = run(rule, torch.float32, OPTIONS[1], 0)
    expected, _ = run(rule, torch.float32, OPTIONS[1], 0, "reference")
    for p, q in zip(actual, expected):
        torch.testing.assert_close(p, q, rtol=3e-6, atol=3e-6)
