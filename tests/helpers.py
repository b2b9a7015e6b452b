"""What several test files share: backends, rules and their options, a zoo of parameters, and gradients for them."""

import os
from dataclasses import dataclass
from typing import Any

import oracle
import pytest
import torch

import extrap_kernels.testing  # noqa: F401, registers cuda-emulated
from extrap_kernels import ExtrapAdam, ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD, backends, triton_kernels

# A new backend is a line here: its name, and the device of the tensors that it is tested with.
DEVICES = {"reference": "cpu", "cpu": "cpu"}
NO_EMULATION = backends.missing_reason("cuda-emulated")
if NO_EMULATION is None:
    DEVICES["cuda-emulated"] = "cpu"
# A wheel for users has none; the Makefile asks for it, and then it must be there.
assert NO_EMULATION is None or os.environ.get("EXTRAP_TESTING") != "ON", NO_EMULATION
needs_emulation = pytest.mark.skipif(NO_EMULATION is not None, reason=str(NO_EMULATION))
if backends.missing_reason("cuda") is None:
    DEVICES["cuda"] = "cuda"
if triton_kernels.missing_reason() is None:
    DEVICES["triton"] = "cpu" if triton_kernels.is_interpreted() else "cuda"
BACKENDS = tuple(DEVICES)
ON_CPU = tuple(name for name in BACKENDS if DEVICES[name] == "cpu")
FAST_BACKENDS = tuple(name for name in BACKENDS if name != "reference")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128)


@dataclass(frozen=True)
class Rule:
    """An optimizer, its oracle, what torch has for it, and sets of options that take each of its branches."""

    optimizer: type
    oracle: type
    torch_optimizer: type | None
    variants: dict[str, dict[str, Any]]


# A new rule is an entry here.
RULES = {
    "sgd": Rule(
        ExtrapSGD,
        oracle.SGD,
        torch.optim.SGD,
        {
            "plain": {},
            "momentum": {"momentum": 0.9},
            "dampening": {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.05},
            "nesterov": {"momentum": 0.9, "nesterov": True},
            "decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            "decoupled": {"momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": True},
            "maximize": {"maximize": True, "weight_decay": 0.1},
        },
    ),
    "adam": Rule(
        ExtrapAdam,
        oracle.Adam,
        torch.optim.Adam,
        {
            "plain": {},
            "decay": {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
            "maximize": {"maximize": True, "weight_decay": 0.1},
        },
    ),
    "adamw": Rule(
        ExtrapAdamW, oracle.Adam, torch.optim.AdamW, {"decay": {"weight_decay": 0.1}, "maximize": {"maximize": True}}
    ),
    "lars": Rule(
        ExtrapLARS,
        oracle.LARS,
        None,
        {
            "plain": {"trust_coefficient": 0.3},
            "decay": {"trust_coefficient": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.5, "eps": 1e-2},
            "decoupled": {"momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
        },
    ),
    "lamb": Rule(
        ExtrapLAMB,
        oracle.LAMB,
        None,
        {"plain": {}, "decay": {"betas": (0.8, 0.95), "weight_decay": 0.5}, "maximize": {"maximize": True}},
    ),
}
RULE_CASES = [
    pytest.param(rule, options, id=f"{name}-{variant}")
    for name, rule in RULES.items()
    for variant, options in rule.variants.items()
]

DIRECTIONS = (None, "past_gradient", "past_update")
NOISES = ({"noise": None},) + tuple(
    {"noise": noise, "noise_scale": scale, "noise_std": 0.05, "seed": 2**63 + 11}
    for noise in ("uniform", "gaussian")
    for scale in ("absolute", "tensor", "filter", "gradient")
)
EXTRAGRADIENT = {"extrapolation": "extragradient", "noise": None}
PERTURBATIONS = [{"extrapolation": direction, **noise} for direction in DIRECTIONS for noise in NOISES]
PERTURBATIONS.append(EXTRAGRADIENT)
# Each direction without noise, with uniform and with Gaussian noise; and extragradient.
FEW_PERTURBATIONS = PERTURBATIONS[::3]


def describe(value):
    """A short test id: the values of a dict of options, a dtype's name."""
    if isinstance(value, dict):
        return "-".join(str(v) for k, v in value.items() if k not in ("noise_std", "seed")) or "default"
    return str(value).removeprefix("torch.")


def channels_last(tensor):
    return tensor.to(memory_format=torch.channels_last)


# How each kind of parameter is made from `make(*shape)`.
LAYOUTS = {
    "scalar": lambda make: make(),
    "empty": lambda make: make(0),
    "empty_rows": lambda make: make(3, 0),
    "one": lambda make: make(1),
    "three": lambda make: make(3),
    "vector": lambda make: make(64),
    "blocks": lambda make: make(4097),
    "matrix": lambda make: make(7, 33),
    "single_row": lambda make: make(1, 40),
    "images": lambda make: make(4, 3, 5, 2),
    "channels_last": lambda make: channels_last(make(4, 3, 5, 2)),
    "transposed": lambda make: make(33, 7).t(),
    "middle_rows": lambda make: make(5, 4, 6).permute(1, 2, 0),
    "offset": lambda make: make(132)[1:],
    "columns": lambda make: make(9, 14)[:, ::2],
}


def zoo(backend, dtype=torch.float32, names=tuple(LAYOUTS), seed=0):
    """Leaf parameters on the device of `backend`; the same values for every backend."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape):
        values = torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32), generator=generator)
        return values.to(DEVICES[backend], dtype)

    return [torch.nn.Parameter(LAYOUTS[name](make)) for name in names]


def random_like(param, seed):
    """Normal random numbers of the parameter's shape and dtype, contiguous."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.promote_types(param.dtype, torch.float32)
    return torch.randn(param.shape, dtype=dtype, generator=generator).to(param.device, param.dtype)


def set_gradients(params, seed):
    """Give each parameter a random gradient."""
    for k, p in enumerate(params):
        p.grad = random_like(p, 1000 * seed + k)


def train(optimizer, steps, seed=0):
    """Take steps with random gradients, whatever the options."""
    params = parameters_of(optimizer)
    for t in range(steps):
        twice = any(group["extrapolation"] == "extragradient" for group in optimizer.param_groups)
        if twice:
            set_gradients(params, seed + 7919 * (t + 1))
            optimizer.extrapolate()
        set_gradients(params, seed + t)
        for p in params if twice else ():
            p.grad += p.detach()  # so that what the first half has done is not lost
        optimizer.step()


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def snapshot(optimizer):
    """Copies of everything a step changes: the parameters, then their states."""
    params = parameters_of(optimizer)
    state = [{name: value.clone() for name, value in optimizer.state.get(p, {}).items()} for p in params]
    return [p.detach().clone() for p in params], state


def assert_same_bits(actual, expected, where=""):
    """The same bits in every tensor of two trees; any NaN equals any other."""
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype and actual.shape == expected.shape
        both = (actual.detach().cpu(), expected.detach().cpu())
        a, b = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in both)
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        same = (a.contiguous().view(bits) == b.contiguous().view(bits)) | (a.isnan() & b.isnan())
        count = f"{(~same).sum()} of {same.numel()} elements differ"
        assert same.all(), f"{where}: {count}, by up to {(a.double() - b.double()).abs().max()}"
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for name in expected:
            assert_same_bits(actual[name], expected[name], f"{where}[{name!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for k, (a, b) in enumerate(zip(actual, expected)):
            assert_same_bits(a, b, f"{where}[{k}]")
    else:
        assert actual == expected, where
