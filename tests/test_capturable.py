"""capturable=True: learning rates and step counts are tensors, as a captured step needs them; betas may be."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdam, ExtrapAdamW


@pytest.mark.parametrize("optimizer", [ExtrapAdam, ExtrapAdamW])
def test_tensors_give_the_bits_of_numbers(backend, optimizer):
    device = helpers.DEVICES[backend]
    # Numbers that float32 holds, so that both are the same.
    numbers = {"lr": 0.125, "extrap_lr": 0.5, "betas": (0.875, 0.96875)}
    tensors = {name: torch.tensor(numbers[name], device=device) for name in ("lr", "extrap_lr")}
    tensors["betas"] = tuple(torch.tensor(beta, device=device) for beta in numbers["betas"])
    plain = optimizer(helpers.zoo(backend), **numbers, backend=backend)
    captured = optimizer(helpers.zoo(backend), **tensors, capturable=True, backend=backend)
    for each in (plain, captured):
        helpers.train(each, steps=2)
    plain.param_groups[0]["lr"] = 0.25
    captured.param_groups[0]["lr"].fill_(0.25)
    for each in (plain, captured):
        helpers.train(each, steps=2)
    helpers.assert_same_bits(helpers.snapshot(captured), helpers.snapshot(plain))
    assert all(torch.equal(s["step"].cpu(), torch.tensor(4.0)) for s in captured.state.values())
