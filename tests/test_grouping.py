"""Param groups of a model: which parameters decay, and which are scaled layer by layer."""

import pytest
import torch

import extrap_kernels
from extrap_kernels import ExtrapSGD, param_groups


def network():
    return torch.nn.Sequential(
        torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 1, bias=False)
    )


def names_of(model, groups):
    names = {param: name for name, param in model.named_parameters()}
    return [[names[param] for param in group["params"]] for group in groups]


def test_biases_and_norms_do_not_decay():
    model = network()
    groups = param_groups(model, weight_decay=0.1)
    assert names_of(model, groups) == [["0.weight", "1.weight", "3.weight"], ["1.bias", "2.weight", "2.bias"]]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_weights_are_excluded_by_name():
    model = network()
    groups = param_groups(model, 0.1, exclude=["0.*"])
    assert names_of(model, groups) == [["1.weight", "3.weight"], ["0.weight", "1.bias", "2.weight", "2.bias"]]
    with pytest.raises(ValueError, match="Invalid exclude value: 'pos_embed'.*'0.weight'"):
        param_groups(model, 0.1, exclude=["pos_embed"])


def test_frozen_and_shared_parameters():
    model = network()
    model[1].weight.requires_grad_(False)
    model.append(torch.nn.Linear(3, 1, bias=False))
    model[4].weight = model[3].weight
    assert names_of(model, param_groups(model, 0.1))[0] == ["0.weight", "3.weight"]


def test_groups_without_parameters_are_left_out():
    groups = param_groups(torch.nn.Linear(2, 1, bias=False), 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1]


def test_lazy_parameters_are_named():
    with pytest.raises(ValueError, match="parameter 'weight' is lazy.*run the model"):
        param_groups(torch.nn.LazyLinear(3), 0.1)


@pytest.mark.parametrize("name", [name for name in extrap_kernels.__all__ if name.startswith("Extrap")])
def test_every_optimizer_takes_the_groups(name):
    model = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(model.weight)
    optimizer = getattr(extrap_kernels, name)(param_groups(model, 0.5), lr=0.1, backend="reference")
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    bias = model.bias.detach().clone()
    optimizer.step()
    assert torch.equal(optimizer.base_of(model.bias), bias)
    assert (optimizer.base_of(model.weight) < 1).all()


def test_the_same_step_as_groups_by_hand():
    results = []
    for make in (
        lambda m: param_groups(m, 0.5),
        lambda m: [{"params": [m.weight], "weight_decay": 0.5}, {"params": [m.bias]}],
    ):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = ExtrapSGD(make(model), lr=0.1, backend="reference")
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        results.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*results))
