"""`layer_adaptation=False` takes a group out of the scaling of LARS and LAMB, as recipes do with biases and norms."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD, param_groups

SHAPES = [(4097,), (3, 5), (1,), ()]


def make(backend, optimizer_type, dtype=torch.float32, **options):
    generator = torch.Generator().manual_seed(3)
    values = [torch.randn(shape, generator=generator).to(helpers.DEVICES[backend], dtype) for shape in SHAPES]
    return optimizer_type([torch.nn.Parameter(value) for value in values], lr=0.1, backend=backend, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("extrapolation", [*helpers.DIRECTIONS, "extragradient"], ids=str)
def test_lars_without_it_is_sgd(backend, extrapolation, dtype):
    options = {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True, "extrapolation": extrapolation}
    lars = make(backend, ExtrapLARS, dtype, layer_adaptation=False, **options)
    sgd = make(backend, ExtrapSGD, dtype, **options)
    for optimizer in (lars, sgd):
        helpers.train(optimizer, steps=3)
    helpers.assert_same_bits(helpers.snapshot(lars), helpers.snapshot(sgd))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("extrapolation", helpers.DIRECTIONS, ids=str)
def test_lamb_without_it_and_without_decay_is_adam(backend, extrapolation, dtype):
    options = {"extrapolation": extrapolation, "eps": 1e-6, "weight_decay": 0.0}
    lamb = make(backend, ExtrapLAMB, dtype, layer_adaptation=False, **options)
    adam = make(backend, ExtrapAdamW, dtype, **options)
    for optimizer in (lamb, adam):
        helpers.train(optimizer, steps=3)
    helpers.assert_same_bits(helpers.snapshot(lamb), helpers.snapshot(adam))


@pytest.mark.parametrize("optimizer_type", [ExtrapLARS, ExtrapLAMB])
def test_switched_in_mid_run(backend, optimizer_type):
    """Each step is that of an optimizer which has always had the option as it is now."""
    optimizer = make(backend, optimizer_type, weight_decay=0.1)
    for adapts in (True, False, True):
        helpers.train(optimizer, steps=1)
        twin = make(backend, optimizer_type, weight_decay=0.1, layer_adaptation=adapts)
        with torch.no_grad():
            for p, q in zip(helpers.parameters_of(optimizer), helpers.parameters_of(twin)):
                q.copy_(p)
        twin.load_state_dict(optimizer.state_dict())
        optimizer.param_groups[0]["layer_adaptation"] = twin.param_groups[0]["layer_adaptation"] = adapts
        for each in (optimizer, twin):
            helpers.train(each, steps=1, seed=5)
        helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


@pytest.mark.parametrize("optimizer_type", [ExtrapLARS, ExtrapLAMB])
def test_groups_of_a_model(backend, optimizer_type):
    """Biases take the step of the rule without scaling, weights that with it: each by a float64 formula."""
    torch.manual_seed(1)
    model = torch.nn.Linear(5, 3).to(helpers.DEVICES[backend])
    before = {name: p.detach().double().cpu() for name, p in model.named_parameters()}
    optimizer = optimizer_type(param_groups(model, 0.5), lr=0.25, extrapolation=None, backend=backend)
    helpers.set_gradients(model.parameters(), 4)
    optimizer.step()
    for name, p in model.named_parameters():
        x, g = before[name], p.grad.double().cpu()
        if optimizer_type is ExtrapLARS:
            trust = 1e-3 * x.norm() / (g.norm() + 0.5 * x.norm() + 1e-8)
            u = (g + 0.5 * x) * trust if name == "weight" else g
        else:
            u = g / (g.abs() + 1e-6) + (0.5 * x if name == "weight" else 0)
            u = u * (x.norm() / u.norm()) if name == "weight" else u
        torch.testing.assert_close(p.detach().double().cpu(), x - 0.25 * u, rtol=0, atol=1e-6)


def test_no_norms_are_taken(backend):
    """What is not scaled costs no pass over the gradients."""
    if backend != "cuda-emulated":
        pytest.skip("launches are counted by the emulation")
    from extrap_kernels.testing import emulated_launches

    optimizer = make(backend, ExtrapLARS)
    counts = []
    for adapts in (True, False):
        optimizer.param_groups[0]["layer_adaptation"] = adapts
        emulated_launches()
        helpers.train(optimizer, steps=1)
        counts.append(emulated_launches())
    assert counts == [2, 1]


@pytest.mark.parametrize("value", ["no", None])
def test_invalid_value(backend, value):
    optimizer = make(backend, ExtrapLAMB)
    optimizer.param_groups[0]["layer_adaptation"] = value
    before = helpers.snapshot(optimizer)
    with pytest.raises(ValueError, match=r"Invalid layer_adaptation value: .*True or False \(param group 0\)"):
        helpers.train(optimizer, steps=1)
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)
