"""How many 32-byte sectors the CUDA kernels ask the memory for: as many as their bytes fill.

A GPU moves sectors. Where the threads of a warp leave gaps between what they access at a time, each sector is asked for
more than once.
"""

import math

import helpers
import numpy as np
import pytest
import torch

from bench.accesses import sectors
from extrap_kernels import _C

pytestmark = helpers.needs_emulation
NUMEL = 8191  # not a whole number of what a thread takes at a time
PAIRS = [
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float16),
    (torch.float16, torch.float32),
]
RULES = {
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9}),
    "adamw": ("adamw", {}),
    "lars": ("lars", {}),
    "lamb": ("lamb", {}),
}
OPTIONS = {
    "": {},
    "y is read": {"extrapolation": None},
    "sums": {"noise": "uniform", "noise_scale": "tensor", "max_grad_norm": 1.0},
    "compact": {"state_dtype": torch.bfloat16},
    "blocks": {"state_dtype": torch.uint8},
}


class Step:
    """A step with all the tensors that it touches, by their names."""

    def __init__(self, rule, pair, options):
        dtype, gradient_dtype = pair
        if "state_dtype" in OPTIONS[options] and dtype == torch.float64:
            pytest.skip("compact state is for single precision")
        # Exponents of a last chunk that is not whole cost more: only a sixteenth of the elements are in it.
        shape = (2047, 16) if options == "blocks" else (NUMEL,)
        self.param = torch.nn.Parameter(torch.linspace(-1, 1, math.prod(shape)).to(dtype).view(shape))
        if hasattr(self.param, "grad_dtype"):
            self.param.grad_dtype = gradient_dtype
        elif dtype != gradient_dtype:
            pytest.skip("this torch has one dtype for parameter and gradient")
        name, own = RULES[rule]
        self.optimizer = helpers.RULES[name].optimizer(
            [self.param], lr=0.1, backend="cuda-emulated", **own, **OPTIONS[options]
        )
        self.set_gradients()
        self.optimizer.step()
        self.set_gradients()
        state = {name: value for name, value in self.optimizer.state[self.param].items() if name != "step"}
        self.tensors = {"parameter": self.param.data, "gradient": self.param.grad, **state}
        if self.optimizer.local_gradients:
            self.tensors["local"] = self.optimizer.local_gradients[self.param]

    def set_gradients(self):
        self.param.grad, local = (helpers.random_like(self.param, k).to(self.param.grad_dtype) for k in range(2))
        if self.optimizer.param_groups[0]["extrapolation"] is not None:
            self.optimizer.local_gradients[self.param] = local

    def misalign(self, name):
        """Put a tensor one element off the alignment."""
        tensor = self.tensors[name]
        moved = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
        self.tensors[name] = moved.copy_(tensor)
        if name == "parameter":
            self.param.data = moved
        elif name == "gradient":
            self.param.grad = moved
        elif name == "local":
            self.optimizer.local_gradients[self.param] = moved
        else:
            self.optimizer.state[self.param][name] = moved

    def excess(self):
        """Take the step; how many times as many sectors it asks for as its bytes fill."""
        accesses = np.array(_C.testing.recorded_accesses(self.optimizer.step), dtype=np.int64)
        return sectors(accesses, self.tensors.values()) / (accesses[:, 1].sum() / 32)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(map(helpers.describe, pair)))
@pytest.mark.parametrize("rule", RULES)
def test_aligned_tensors_are_at_the_floor(rule, pair, options):
    """But for the ends, and for exponents, of which a warp asks for 8 bytes at a time."""
    assert 1 <= Step(rule, pair, options).excess() < (1.03 if options == "blocks" else 1.01)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(map(helpers.describe, pair)))
@pytest.mark.parametrize("rule", RULES)
def test_an_unaligned_tensor_costs_a_quarter_more_at_most(rule, pair, options):
    for name in Step(rule, pair, options).tensors:
        step = Step(rule, pair, options)
        step.misalign(name)
        assert 1 < step.excess() < 1.26, name
