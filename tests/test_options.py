"""Options that cannot be carried out are named; those that change nothing are accepted."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD


def make(backend, params, **options):
    return ExtrapSGD(params, lr=0.1, momentum=0.9, nesterov=True, noise="uniform", backend=backend, **options)


PARAMS = [torch.nn.Parameter(torch.ones(2))]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr": -0.1}, "Invalid learning rate: -0.1"),
        ({"lr": NAN}, "Invalid learning rate: nan"),
        ({"lr": torch.ones(2)}, "Tensor lr must be 1-element"),
        ({"momentum": -0.5}, "Invalid momentum value: -0.5"),
        ({"momentum": NAN}, "Invalid momentum value: nan"),
        ({"dampening": NAN}, "Invalid dampening value: nan"),
        ({"weight_decay": -1.0}, "Invalid weight_decay value: -1.0"),
        ({"weight_decay": NAN}, "Invalid weight_decay value: nan"),
        ({"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "Nesterov momentum requires a momentum"),
        ({"differentiable": True}, "Invalid differentiable value: True"),
        ({"extrapolation": "future"}, "Invalid extrapolation value: 'future'.*'past_gradient'"),
        ({"extrap_lr": NAN}, "Invalid extrap_lr value: nan"),
        ({"extrap_lr": INF}, "Invalid extrap_lr value: inf"),
        ({"extrap_lr": torch.ones(2)}, "Invalid extrap_lr value: a tensor of 2 elements"),
        ({"extrap_ratio": -INF}, "Invalid extrap_ratio value: -inf"),
        ({"extrap_ratio": NAN}, "Invalid extrap_ratio value: nan"),
        ({"extrap_norm": "layer"}, "Invalid extrap_norm value: 'layer'.*'global'"),
        (
            {"extrapolation": "momentum", "extrap_norm": "global"},
            "Invalid momentum value: 0 with extrapolation='momentum'",
        ),
        ({"extrap_scale": "filter"}, "Invalid extrap_scale value: 'filter'.*'adaptive'"),
        ({"noise": "laplace"}, "Invalid noise value: 'laplace'.*'gaussian'"),
        ({"noise_std": -0.1}, "Invalid noise_std value: -0.1"),
        ({"noise_std": NAN}, "Invalid noise_std value: nan"),
        ({"noise_scale": "layer"}, "Invalid noise_scale value: 'layer'.*'filter'"),
        ({"seed": -1}, "Invalid seed value: -1"),
        ({"seed": 2**64}, f"Invalid seed value: {2**64}"),
        ({"seed": 0.5}, "Invalid seed value: 0.5"),
    ],
    ids=str,
)
def test_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ExtrapSGD(PARAMS, **options)
    with pytest.raises(ValueError, match=message):
        ExtrapSGD([{"params": PARAMS, **options}])


@pytest.mark.parametrize(
    "options", [{"extrapolation": "future"}, {"noise": "laplace"}, {"noise_scale": "layer"}], ids=str
)
def test_bad_name_in_mid_run_changes_nothing(backend, options):
    """Not even the group before the one that has it."""
    optimizer, twin = (
        make(backend, [{"params": helpers.zoo(backend, names=[name])} for name in ("matrix", "vector")])
        for _ in range(2)
    )
    for each in (optimizer, twin):
        helpers.train(each, steps=1)
    optimizer.param_groups[1].update(options)
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"Invalid {name} value: '{value}'; choose one of"):
        optimizer.step()
    optimizer.param_groups[1][name] = twin.param_groups[1][name]
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


def test_unknown_option_is_named():
    with pytest.raises(TypeError, match="'extrapolations'"):
        ExtrapSGD(PARAMS, extrapolations=None)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {"foreach": True, "fused": True}], ids=str)
def test_options_of_other_implementations_are_accepted(backend, options):
    params, twins = (helpers.zoo(backend) for _ in range(2))
    optimizer, plain = make(backend, params, **options), make(backend, twins)
    for each in (optimizer, plain):
        helpers.train(each, steps=1)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(plain))


def test_extrap_lr_follows_lr_unless_set(backend):
    """And zero is a value of its own; negative ones point the other way."""
    moved = []
    sets = ({}, {"extrap_ratio": 3.0}, {"extrap_lr": 0.0}, {"extrap_lr": 0.5, "extrap_ratio": 3.0})
    for options in (*sets, {"extrap_lr": -0.5}, {"extrap_ratio": -1.5}):
        (param,) = helpers.zoo(backend, torch.float64, ["one"])
        optimizer = ExtrapSGD([param], lr=0.1, backend=backend, **options)
        optimizer.param_groups[0]["lr"] = 0.2  # what a scheduler does
        param.grad = torch.ones_like(param)
        optimizer.step()
        moved.append((optimizer.base_of(param) - param).item())
    assert moved == pytest.approx([0.2, 0.6, 0.0, 0.5, -0.5, -0.3], abs=1e-15)
