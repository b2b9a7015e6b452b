"""torchtune: a config names our optimizer as its component, also for its steps in backward."""

import helpers
import pytest
import torch

training = pytest.importorskip("torchtune.training", reason="torchtune is not installed")
from omegaconf import OmegaConf  # noqa: E402
from torchtune import config  # noqa: E402

CONFIG = {"_component_": "extrap_kernels.ExtrapAdamW", "lr": 0.01, "extrapolation": "momentum"}


def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def test_a_config_names_the_optimizer_and_its_steps_in_backward_are_the_same():
    chosen = OmegaConf.create(CONFIG)
    model, released = make(), make()
    optimizer = config.instantiate(chosen, model.parameters())
    assert optimizer.param_groups[0]["extrapolation"] == "momentum"
    of_each = {p: config.instantiate(chosen, [p]) for p in released.parameters()}
    training.register_optim_in_bwd_hooks(model=released, optim_dict=of_each)
    for seed in range(4):
        batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        for each in (model, released):
            each(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    helpers.assert_same_bits(list(released.parameters()), list(model.parameters()))
    saved = training.create_optim_in_bwd_wrapper(model=released, optim_dict=of_each).state_dict()
    assert set(saved) == {name for name, _ in released.named_parameters()}
