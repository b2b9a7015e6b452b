"""What each process does in test_deepspeed.py: a small model under DeepSpeed's engine, on the CPU."""

import copy
import os
import sys

import torch

from extrap_kernels import ExtrapSGD
from extrap_kernels.distributed.deepspeed import connect

# What DeepSpeed calls the tensors that it steps, by configuration.
CONFIGURATIONS = {
    "float32": ({}, torch.float32),
    "bf16": ({"bf16": {"enabled": True}}, torch.bfloat16),
    "ZeRO 1": ({"zero_optimization": {"stage": 1}}, torch.float32),
    "ZeRO 1, bf16": ({"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}, torch.bfloat16),
    "ZeRO 1, bf16, gradients in float32": (
        {
            "zero_optimization": {"stage": 1},
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
        },
        torch.bfloat16,
    ),
    "ZeRO 2, bf16": ({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}, torch.bfloat16),
}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


def engine_of(configuration, optimizer_type=ExtrapSGD, stage=None, **options):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", str(torch.distributed.get_rank()))
    import deepspeed

    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # it compiles
    settings, dtype = CONFIGURATIONS[configuration]
    settings = copy.deepcopy(settings)
    if stage is not None:
        settings["zero_optimization"] = {"stage": stage}
    plain = {"train_micro_batch_size_per_gpu": 4, "gradient_clipping": 0.0, "zero_allow_untested_optimizer": True}
    settings = {**plain, **settings}
    model = network()
    optimizer = optimizer_type(model.parameters(), backend="reference", **{"lr": 0.1, **options})
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    return engine, optimizer, dtype


def weights(model):
    return torch.cat([p.detach().float().flatten() for p in model.parameters()])


def modes(configuration):
    """Train beside the same model in one process; what both hold after each step, at x and at y."""
    engine, optimizer, dtype = engine_of(configuration, momentum=0.9)
    refused = ""
    if engine.optimizer is not optimizer:
        try:
            optimizer.eval()
        except RuntimeError as error:
            refused = str(error)
    connect(engine)
    twin = network().to(dtype)
    twins = ExtrapSGD(twin.parameters(), lr=0.1, momentum=0.9, backend="reference")
    if configuration == "bf16":  # the wrapper takes a step of zero gradients to create the state
        for p in twin.parameters():
            p.grad = torch.zeros_like(p)
        twins.step()
    seen = []
    for t in range(3):
        batch = torch.randn(4, 5, generator=torch.Generator().manual_seed(t)).to(dtype)
        engine.backward(engine(batch).float().square().mean())
        engine.step()
        twins.zero_grad()
        twin(batch).float().square().mean().backward()
        twins.step()
        y = weights(engine.module)
        with optimizer.base_parameters(), twins.base_parameters():
            x, expected_x = weights(engine.module), weights(twin)
        seen.append((x, expected_x, y, weights(twin), weights(engine.module)))
    return refused, engine.optimizer is optimizer, seen


def refusal(configuration, call, **options):
    """The error of `connect` or of a step without it."""
    import extrap_kernels

    optimizer_type = getattr(extrap_kernels, options.pop("optimizer", "ExtrapSGD"))
    try:
        engine, _, dtype = engine_of(configuration, optimizer_type, **options)
        if call == "connect":
            connect(engine)
        else:
            engine.backward(engine(torch.ones(4, 5, dtype=dtype)).float().square().mean())
            engine.step()
    except (RuntimeError, TypeError) as error:
        return str(error)
    return ""
