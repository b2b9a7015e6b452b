"""``float32_state_dict()``: what state of every format stands for, without losing a bit, for whoever reads float32."""

import copy

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdam, ExtrapAdamW, ExtrapLAMB, ExtrapSGD
from extrap_kernels.reference.random_bits import rounding_words
from extrap_kernels.state.float24 import SPLIT

STATE_DTYPES = (torch.float32, torch.bfloat16, torch.uint8)
RULES = {
    "sgd": (ExtrapSGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (ExtrapAdam, {}),
    "lamb": (ExtrapLAMB, {"layer_adaptation": False}),
}
SHAPES = ((64, 80), (37, 4, 48), (8, 16), (4097,), (0,))


def parameters(backend, dtype):
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(shape, generator=generator) for shape in SHAPES)
    return [torch.nn.Parameter(value.to(helpers.DEVICES[backend], dtype)) for value in made]


def trained(backend, rule, dtype, steps=3, **options):
    kind, own = RULES[rule]
    optimizer = kind(parameters(backend, dtype), lr=0.1, backend=backend, **own, **options)
    helpers.train(optimizer, steps)
    return optimizer


def with_parameters_of(optimizer, **options):
    """An optimizer of the same kind on copies of the parameters."""
    copies = [torch.nn.Parameter(p.detach().clone()) for p in helpers.parameters_of(optimizer)]
    kept = {"momentum": 0.9, "nesterov": True} if isinstance(optimizer, ExtrapSGD) else {}
    return type(optimizer)(copies, lr=0.1, backend=optimizer.backend, **kept, **options)


@pytest.mark.parametrize("state_dtype", STATE_DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=helpers.describe)
@pytest.mark.parametrize("rule", RULES)
def test_the_next_step_is_the_same(backend, rule, dtype, state_dtype):
    optimizer = trained(backend, rule, dtype, state_dtype=state_dtype)
    exported = optimizer.float32_state_dict()
    kept = {"step", "base", "momentum_buffer", "exp_avg", "exp_avg_sq"}
    for entries in exported["state"].values():
        assert set(entries) <= kept and all(value.dtype == torch.float32 for value in entries.values())
    resumed = with_parameters_of(optimizer)
    resumed.load_state_dict(exported)
    assert resumed.param_groups[0]["state_dtype"] == torch.float32
    helpers.assert_same_bits(list(resumed.state.values()), list(exported["state"].values()))
    for each in (optimizer, resumed):
        helpers.train(each, 1, seed=9)
    for k, (p, q) in enumerate(zip(helpers.parameters_of(optimizer), helpers.parameters_of(resumed))):
        if "base_low" not in optimizer.state[p]:
            helpers.assert_same_bits(q.detach(), p.detach())
            continue
        # But for the rounding of x.
        words = rounding_words(torch.arange(p.numel()).view(p.shape), seed=0, parameter=k, step=4)
        helpers.assert_same_bits(optimizer.base_of(p).cpu(), SPLIT.rounded(resumed.base_of(q).cpu(), words))


@pytest.mark.parametrize("state_dtype", STATE_DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("in_eval_mode", [False, True], ids=["train", "eval"])
def test_back_in_its_format_it_is_the_same_state(backend, state_dtype, in_eval_mode):
    """And the export leaves the optimizer as it was."""
    optimizer = trained(backend, "adam", torch.bfloat16, state_dtype=state_dtype)
    if in_eval_mode:
        optimizer.eval()
    before = copy.deepcopy(optimizer.state_dict())
    exported = optimizer.float32_state_dict()
    helpers.assert_same_bits(optimizer.state_dict(), before)
    for group in exported["param_groups"]:
        group["state_dtype"] = before["param_groups"][0]["state_dtype"]
    resumed = with_parameters_of(optimizer)
    resumed.load_state_dict(exported)
    helpers.assert_same_bits(resumed.state_dict(), before)


def test_blocks_that_are_not_finite_are_exported_as_such(backend):
    optimizer = trained(backend, "adam", torch.float32, state_dtype=torch.uint8)
    helpers.set_gradients(helpers.parameters_of(optimizer), 7)
    helpers.parameters_of(optimizer)[0].grad[3, 17] = torch.inf
    optimizer.step()
    exported = optimizer.float32_state_dict()["state"][0]["exp_avg_sq"]
    assert exported[3, 16:32].isnan().all() and int(exported.isnan().sum()) == 16


def test_groups_and_options_stay_as_they_are(backend):
    params = parameters(backend, torch.float32)
    groups = [{"params": params[:2], "state_dtype": torch.uint8}, {"params": params[2:], "lr": 0.5}]
    optimizer = ExtrapAdam(groups, lr=0.1, backend=backend)
    helpers.train(optimizer, 2)
    exported, saved = optimizer.float32_state_dict(), optimizer.state_dict()
    assert [group["state_dtype"] for group in saved["param_groups"]] == ["uint8", "float32"]
    for group in saved["param_groups"]:
        group["state_dtype"] = "float32"
    assert exported["param_groups"] == saved["param_groups"]
    assert exported["state"].keys() == saved["state"].keys()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=helpers.describe)
def test_state_in_more_precision_keeps_it(backend, dtype):
    optimizer = ExtrapSGD(helpers.zoo(backend, dtype), lr=0.1, momentum=0.9, backend=backend)
    helpers.train(optimizer, 2)
    helpers.assert_same_bits(optimizer.float32_state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("state_dtype", STATE_DTYPES, ids=helpers.describe)
@pytest.mark.parametrize(
    "ours, theirs, options",
    [
        (ExtrapSGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (ExtrapAdam, torch.optim.Adam, {"weight_decay": 0.1}),
        (ExtrapAdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_torch_goes_on_from_it(backend, ours, theirs, options, state_dtype):
    """With the same step, which ours takes without extrapolation."""
    optimizer = ours(parameters(backend, torch.float32), lr=0.1, backend=backend, state_dtype=state_dtype, **options)
    helpers.train(optimizer, 3)
    optimizer.eval()
    params = [torch.nn.Parameter(p.detach().clone()) for p in helpers.parameters_of(optimizer)]
    plain = theirs(params, lr=1.0, **options)
    plain.load_state_dict(copy.deepcopy(optimizer.float32_state_dict()))  # torch takes the tensors themselves
    optimizer.train()
    optimizer.param_groups[0]["extrapolation"] = None
    for each in (optimizer, plain):
        helpers.set_gradients(helpers.parameters_of(each), 9)
        each.step()
    for p, q in zip(helpers.parameters_of(optimizer), params):
        torch.testing.assert_close(q.detach(), optimizer.base_of(p).detach(), rtol=1e-5, atol=1e-6)
