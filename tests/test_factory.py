"""Optimizers by name, and what their signatures show."""

import inspect
import pydoc

import helpers
import pytest
import torch

import extrap_kernels
from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapSGD, create, options
from extrap_kernels.factory import optimizers

OPTIMIZERS = optimizers()


@pytest.mark.parametrize("name", [*OPTIMIZERS, "SGD", "ExtrapAdamW", "extraplamb"])
def test_create(name):
    params = helpers.zoo("cpu", torch.float32, ["vector", "matrix"])
    optimizer = create(name, params, lr=0.25, noise="gaussian")
    assert type(optimizer) is OPTIMIZERS[name.lower().removeprefix("extrap")]
    (group,) = optimizer.param_groups
    assert group["params"] == params and group["lr"] == 0.25 and group["noise"] == "gaussian"


def test_every_optimizer_has_a_name():
    exported = [getattr(extrap_kernels, name) for name in extrap_kernels.__all__]
    found = [each for each in exported if isinstance(each, type) and issubclass(each, torch.optim.Optimizer)]
    assert set(OPTIMIZERS.values()) == set(found)
    assert set(OPTIMIZERS) == {"sgd", "adam", "adamw", "lars", "lamb"}


@pytest.mark.parametrize("decay, expected", [({}, 0.01), ({"weight_decay": 0.25}, 0.25)])
def test_create_for_a_module(decay, expected):
    model = torch.nn.Linear(3, 2)
    weights, others = create("adamw", model, **decay).param_groups
    assert weights["params"] == [model.weight] and weights["weight_decay"] == expected
    assert others["params"] == [model.bias] and others["weight_decay"] == 0
    assert others["layer_adaptation"] is False


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"Invalid name value: 'muon'; the optimizers are \[.*'sgd'"):
        create("muon", [])
    with pytest.raises(TypeError, match="extrap_rate"):
        create("sgd", [], extrap_rate=1.0)


@pytest.mark.parametrize("optimizer_type", OPTIMIZERS.values())
def test_signature_shows_every_option(optimizer_type):
    parameters = inspect.signature(optimizer_type).parameters
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    assert {name: parameters[name].default for name in options.DEFAULTS} == options.DEFAULTS
    assert parameters["noise"].annotation == "Optional[Noise]"
    # Each of them is taken as the signature has it.
    accepted = {name: each.default for name, each in parameters.items() if name != "params"}
    optimizer_type(helpers.zoo("cpu", torch.float32, ["vector"]), **accepted)
    assert "extrap_ratio: 'float' = 1.0" in pydoc.render_doc(optimizer_type)


def test_signature_of_a_subclass():
    class Renamed(ExtrapSGD):
        def __init__(self, params, inner=0.5, **others):
            super().__init__(params, extrap_ratio=inner, **others)

    class Fixed(ExtrapLAMB):
        def __init__(self, params):
            super().__init__(params, lr=0.5)

    assert list(inspect.signature(Renamed).parameters)[:3] == ["params", "inner", "extrapolation"]
    assert list(inspect.signature(Fixed).parameters) == ["params"]
    assert list(inspect.signature(ExtrapAdamW).parameters)[:2] == ["params", "lr"]
