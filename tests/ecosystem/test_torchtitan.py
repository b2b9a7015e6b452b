"""torchtitan: its container of optimizers takes ours by name, and checkpoints its own flat state dict."""

import copy

import helpers
import pytest
import torch

import extrap_kernels

components = pytest.importorskip("torchtitan.components.optimizer", reason="torchtitan is not installed")


class Optimizers(components.OptimizersContainer):
    """As docs/usage.md tells users to write it."""

    @staticmethod
    def _resolve_optimizer_factory(name):
        ours = name in extrap_kernels.__all__
        return (
            getattr(extrap_kernels, name) if ours else components.OptimizersContainer._resolve_optimizer_factory(name)
        )


def make(**options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    kinds = [(r"bias$", {"weight_decay": 0.0}), (r".*", {"weight_decay": 0.1})]
    groups = [
        components.ParamGroupConfig(
            pattern=pattern, optimizer_name="ExtrapAdamW", optimizer_kwargs={"lr": 0.01, **own, **options}
        )
        for pattern, own in kinds
    ]
    return model, Optimizers(Optimizers.Config(param_groups=groups), model_parts=[model])


def train(model, optimizers, seeds):
    for seed in seeds:
        optimizers.zero_grad()
        model(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizers.step()


@pytest.mark.parametrize("options", [{}, {"extrapolation": "momentum"}, {"state_dtype": torch.bfloat16}], ids=str)
def test_steps_and_checkpoints(options):
    model, optimizers = make(**options)
    train(model, optimizers, range(3))
    saved = copy.deepcopy(optimizers.state_dict())
    resumed, others = make(**options)
    resumed.load_state_dict(model.state_dict())
    others.load_state_dict(saved)
    for each in ((model, optimizers), (resumed, others)):
        train(*each, range(3, 5))
    helpers.assert_same_bits(list(resumed.parameters()), list(model.parameters()))
    (optimizer,) = optimizers
    y = [p.detach().clone() for p in model.parameters()]
    optimizer.eval()
    assert any((p != before).any() for p, before in zip(model.parameters(), y))
