"""FSDP2, HSDP and tensor parallelism: what a step does never depends on how a parameter is spread over processes."""

import pytest
import sharded_worker
import torch
from cases import with_backends

STEPS = {
    "sgd": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("adam", {"weight_decay": 0.1}),
    "lars": ("lars", {"momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.3}),
    "lamb": ("lamb", {"weight_decay": 0.1}),
    "clipping": ("sgd", {"max_grad_norm": 1.0}),
    "lamb, clipping, noise": ("lamb", {"max_grad_norm": 1.0, "noise": "uniform", "noise_scale": "filter"}),
    "extragradient": ("lars", {"extrapolation": "extragradient"}),
    **{
        f"{noise}, {scale}": ("sgd", {"noise": noise, "noise_scale": scale})
        for noise, scale in (
            ("uniform", "absolute"),
            ("uniform", "tensor"),
            ("uniform", "filter"),
            ("gaussian", "gradient"),
        )
    },
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("spread", "backend"), with_backends(sharded_worker.SPREADS, "rows and columns"))
def test_same_bits_as_one_process(processes, backend, spread, step):
    empty = processes(4).run(sharded_worker.step_both, *STEPS[step], spread, torch.float32, backend)
    assert any(empty) == (spread != "replicas")
