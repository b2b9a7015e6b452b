"""How many launches a step is, and that the work is the same however it is cut."""

import helpers
import pytest
import torch

from extrap_kernels import _C, ExtrapAdamW, ExtrapLAMB, ExtrapSGD

pytestmark = helpers.needs_emulation
NOISE = {"noise": "gaussian"}
FILTER_NOISE = {"noise": "gaussian", "noise_scale": "filter"}


def launches(optimizer_type, count, *, local=False, **options):
    """Launches of a step over `count` tensors, whose sizes do not matter; those of the norms are as many."""
    params = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(count)]
    optimizer = optimizer_type(params, backend="cuda-emulated", **options)
    for p in params:
        p.grad = torch.ones_like(p)
        if local:
            optimizer.local_gradients[p] = torch.ones_like(p)
    _C.testing.emulated_launches()
    optimizer.step()
    return _C.testing.emulated_launches()


@pytest.mark.parametrize("options", [{}, NOISE], ids=helpers.describe)
@pytest.mark.parametrize("optimizer_type", [ExtrapSGD, ExtrapAdamW, ExtrapLAMB])
@pytest.mark.parametrize("count", [161, 291], ids=["ResNet-50", "Llama-2-7B"])
def test_models_take_one_launch(optimizer_type, count, options):
    expected = 2 if optimizer_type is ExtrapLAMB else 1  # one for its norms
    assert launches(optimizer_type, count, **options) == expected
    assert launches(optimizer_type, count, local=True, **options) == expected


def test_ten_thousand_tensors_take_at_most_twenty_launches():
    assert launches(ExtrapSGD, 10_000, momentum=0.9, **NOISE) <= 20
    assert launches(ExtrapAdamW, 10_000, **NOISE) <= 20
    assert launches(ExtrapAdamW, 10_000, local=True) <= 20


@pytest.mark.parametrize("count", [1, 539, 5000])
@pytest.mark.parametrize("optimizer_type, buffers", [(ExtrapSGD, 0), (ExtrapAdamW, 2)])
def test_launches_foretold_are_those_that_happen(optimizer_type, buffers, count):
    assert _C.cuda_launches(buffers, [4] * count) == launches(optimizer_type, count)


def test_large_tensors_take_no_more_launches():
    """Llama-3-70B has 723 tensors, some of them over 2^30 elements; sizes beyond 2^32 take four bytes more."""
    assert _C.cuda_launches(2, [2**30] * 723) == _C.cuda_launches(2, [4] * 723) == 2
    assert _C.cuda_launches(2, [2**33] * 291) == 1


@pytest.mark.parametrize("options", [{}, {**FILTER_NOISE, "max_grad_norm": 1.0}], ids=str)
@pytest.mark.parametrize("rule", ["sgd", "adam", "lars", "lamb"])
def test_steps_of_many_launches_are_those_of_the_reference(rule, options):
    """Empty tensors among them, and some without a gradient for a while."""

    def run(backend):
        generator = torch.Generator().manual_seed(0)
        shapes = [(0,) if k % 7 == 3 else (k % 5, 3) for k in range(1100)]
        params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, **options)
        for t in range(3):
            helpers.set_gradients(params, seed=t)
            for k, p in enumerate(params):
                if t == 0 and k % 11 == 0:
                    p.grad = None
                elif k % 3 == 0:
                    optimizer.local_gradients[p] = helpers.random_like(p, 77 * t + k)
            optimizer.step()
        return helpers.snapshot(optimizer)

    params, state = run("cuda-emulated")
    expected_params, expected_state = run("reference")
    for p, q in zip(params, expected_params):
        torch.testing.assert_close(p, q, rtol=3e-6, atol=3e-6)
    assert [s.get("step") for s in state] == [s.get("step") for s in expected_state]
