"""DeepSpeed: modes reach the model; what its flat tensors would do wrong is refused. The last tests run DeepSpeed."""

import importlib.util
import sys
import types

import deepspeed_worker
import pytest
import torch

from extrap_kernels import ExtrapLAMB, ExtrapLARS, ExtrapSGD
from extrap_kernels.distributed.deepspeed import connect


class Flat:
    """What ZeRO 1 and 2 do to an optimizer, in one process."""

    def __init__(self, optimizer):
        self.optimizer, self.models = optimizer, [list(group["params"]) for group in optimizer.param_groups]
        for group, params in zip(optimizer.param_groups, self.models):
            master = torch.cat([p.detach().float().flatten() for p in params]).requires_grad_()
            group["params"] = [master]

    def step(self):
        every = self.optimizer.param_groups
        for group, params in zip(every, self.models):
            group["params"][0].grad = torch.cat([p.grad.float().flatten() for p in params])
            self.optimizer.param_groups = [group]
            self.optimizer.step()
        self.optimizer.param_groups = every
        self.update_lp_params()

    @torch.no_grad()
    def update_lp_params(self):
        for group, params in zip(self.optimizer.param_groups, self.models):
            parts = group["params"][0].split([p.numel() for p in params])
            for p, part in zip(params, parts):
                p.copy_(part.view_as(p))


class Unfused:
    """What bf16 and fp16 without ZeRO do to an optimizer."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.fp16_groups = [list(group["params"]) for group in optimizer.param_groups]
        self.fp32_groups = [[p.detach().clone().float().requires_grad_() for p in ps] for ps in self.fp16_groups]
        for group, masters in zip(optimizer.param_groups, self.fp32_groups):
            group["params"] = masters

    def step(self):
        for params, masters in zip(self.fp16_groups, self.fp32_groups):
            for p, master in zip(params, masters):
                master.grad = p.grad.float()
        self.optimizer.step()
        for params, masters in zip(self.fp16_groups, self.fp32_groups):
            for p, master in zip(params, masters):
                p.data.copy_(master.data)


@pytest.fixture
def deepspeed(monkeypatch):
    """DeepSpeed's module is loaded, whatever is in it."""
    monkeypatch.setitem(sys.modules, "deepspeed", types.ModuleType("deepspeed"))


def trained(wrap, optimizer_type=ExtrapSGD, dtype=torch.bfloat16, groups=None, **options):
    model = deepspeed_worker.network().to(dtype)
    params = list(model.parameters())
    groups = [params] if groups is None else groups(params)
    given = [{"params": group} for group in groups]
    optimizer = optimizer_type(given, **{"lr": 0.1, "backend": "reference", **options})
    wrapper = wrap(optimizer)
    return types.SimpleNamespace(optimizer=wrapper, module=model), optimizer


def train(engine, steps=2):
    for t in range(steps):
        batch = torch.randn(4, 5, generator=torch.Generator().manual_seed(t)).to(next(engine.module.parameters()).dtype)
        engine.module.zero_grad()
        engine.module(batch).float().square().mean().backward()
        engine.optimizer.step()


@pytest.mark.parametrize("wrap", [Flat, Unfused])
def test_modes_reach_the_model(deepspeed, wrap):
    engine, optimizer = trained(wrap, momentum=0.9)
    connect(engine)
    train(engine)
    y = [p.detach().clone() for p in engine.module.parameters()]
    optimizer.eval()
    x = torch.cat([optimizer.base_of(p).flatten() for group in optimizer.param_groups for p in group["params"]])
    assert torch.equal(deepspeed_worker.weights(engine.module), x.bfloat16().float())
    optimizer.train()
    assert all(torch.equal(p, kept) for p, kept in zip(engine.module.parameters(), y))
    with optimizer.base_parameters():
        assert not torch.equal(next(engine.module.parameters()), y[0])
    assert torch.equal(next(engine.module.parameters()), y[0])


@pytest.mark.parametrize("wrap", [Flat, Unfused])
def test_modes_that_would_not_reach_the_model_are_refused(deepspeed, wrap):
    engine, optimizer = trained(wrap)
    train(engine)
    with pytest.raises(RuntimeError, match=r"DeepSpeed.*would not reach the model.*connect\(engine\)"):
        optimizer.eval()
    assert optimizer.param_groups[0]["train_mode"]


@pytest.mark.parametrize("optimizer_type", [ExtrapLARS, ExtrapLAMB])
def test_trust_ratios_of_flat_tensors_are_refused(deepspeed, optimizer_type):
    engine, _ = trained(Flat, optimizer_type)
    with pytest.raises(RuntimeError, match="one trust ratio for all"):
        connect(engine)
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0 .*one trust ratio for all"):
        train(engine)
    # Masters that are not flat have the ratios of their parameters.
    engine, _ = trained(Unfused, optimizer_type)
    connect(engine)
    train(engine)


REFUSED = {
    "extragradient": ({"extrapolation": "extragradient"}, "only after whole steps"),
    "norm of a part": ({"max_grad_norm": 1.0}, "bound the norm of this part alone.*gradient_clipping"),
    "direction of a part": ({"extrap_norm": "global"}, "extrap_norm='global' would be the norm of this part alone"),
    "noise of a tensor": ({"noise": "uniform", "noise_scale": "tensor"}, "noise_scale='tensor' would be that of all"),
    "noise of a filter": ({"noise": "uniform", "noise_scale": "filter"}, "noise_scale='filter' would be that of all"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_options_that_a_flat_tensor_cannot_have(deepspeed, options, message):
    engine, _ = trained(Flat, **options)
    with pytest.raises(RuntimeError, match=message):
        connect(engine)


def test_noise_of_several_groups_needs_several_seeds(deepspeed):
    def halves(params):
        return params[:2], params[2:]

    engine, optimizer = trained(Flat, groups=halves, noise="uniform", seed=7)
    with pytest.raises(RuntimeError, match="seed 7.*a seed of its own"):
        connect(engine)
    optimizer.param_groups[1]["seed"] = 8
    connect(engine)
    train(engine)


def test_wrappers_that_are_not_known_are_refused(deepspeed):
    engine, optimizer = trained(Flat)
    engine.optimizer = types.SimpleNamespace(optimizer=optimizer)
    with pytest.raises(RuntimeError, match="SimpleNamespace of DeepSpeed has no way"):
        connect(engine)
    engine.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(TypeError, match="optimizer is a SGD; it must be one of extrap_kernels"):
        connect(engine)


def test_float32_without_zero_needs_nothing():
    engine, optimizer = trained(lambda optimizer: optimizer, dtype=torch.float32)
    connect(engine)
    train(engine)
    optimizer.eval()


needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@needs_deepspeed
@pytest.mark.parametrize("configuration", deepspeed_worker.CONFIGURATIONS)
def test_deepspeed_trains_and_evaluates_as_one_process(processes, configuration):
    for refused, direct, seen in processes(2).run(deepspeed_worker.modes, configuration):
        assert direct or "connect(engine)" in refused
        for x, expected_x, y, expected_y, y_again in seen:
            torch.testing.assert_close(x, expected_x, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(y, expected_y, rtol=1e-5, atol=1e-6)
            assert torch.equal(y, y_again) and not torch.equal(x, y)


@needs_deepspeed
@pytest.mark.parametrize("call", ["connect", "step"])
def test_deepspeed_has_one_trust_ratio(processes, call):
    for message in processes(2).run(deepspeed_worker.refusal, "ZeRO 1, bf16", call, optimizer="ExtrapLAMB"):
        assert "one trust ratio for all" in message


@needs_deepspeed
def test_deepspeed_stage_3_is_refused(processes):
    for message in processes(2).run(deepspeed_worker.refusal, "bf16", "connect", stage=3):
        assert "has no way to put masters into the model" in message
