"""FSDP2, HSDP and tensor parallelism: what a step does never depends on how a parameter is spread over processes."""

import pytest
import sharded_worker
import torch
from cases import with_backends


def noise(kind, scale):
    return {"noise": kind, "noise_scale": scale}


# Every rule, every sum over processes (trust ratios, norms, rms of a tensor and of its rows), every noise.
STEPS = {
    "sgd": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, **noise("gaussian", "gradient")}),
    "adam": ("adam", {"weight_decay": 0.1, **noise("uniform", "absolute")}),
    "clipping": ("sgd", {"max_grad_norm": 1.0, **noise("uniform", "filter")}),
    "lars": ("lars", {"momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.3, **noise("uniform", "tensor")}),
    "lamb": ("lamb", {"weight_decay": 0.1, "max_grad_norm": 1.0, **noise("uniform", "filter")}),
    "halves": ("adam", {"state_dtype": torch.bfloat16, **noise("uniform", "absolute")}),
    "blocks": ("adam", {"state_dtype": torch.uint8, **noise("uniform", "absolute")}),
    "extragradient": ("lars", {"extrapolation": "extragradient"}),
    "SAM": ("adam", {"extrapolation": "extragradient", "extrap_lr": -0.3, "extrap_norm": "global"}),
    "recovered": ("sgd", {"momentum": 0.9, "weight_decay": 0.1, "extrapolation": "past_update", "extrap_ratio": 5.0}),
    "MSAM": ("lamb", {"extrapolation": "momentum", "extrap_lr": 0.3, "extrap_norm": "global"}),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("spread", "backend"), with_backends(sharded_worker.SPREADS, "rows and columns"))
def test_same_bits_as_one_process(processes, backend, spread, step):
    empty = processes(4).run(sharded_worker.step_both, *STEPS[step], spread, torch.float32, backend)
    assert any(empty) == (spread != "replicas")


@pytest.mark.parametrize("step", ["halves", "blocks"])
@pytest.mark.parametrize(("spread", "backend"), with_backends(["rows", "rows and columns"], "rows"))
def test_same_bits_of_a_base_in_24_bits(processes, backend, spread, step):
    assert any(processes(4).run(sharded_worker.step_both, *STEPS[step], spread, torch.bfloat16, backend))


def test_one_all_reduce_takes_all_sums(processes):
    """The norm of the momentum beside those of LAMB; nothing is communicated without any of them."""
    norm = {"extrapolation": "momentum", "extrap_norm": "global"}
    counts = [("lamb", norm, 1), ("lamb", {}, 1), ("sgd", {**norm, "momentum": 0.9}, 1), ("sgd", {"momentum": 0.9}, 0)]
    for rule, options, count in counts:
        assert processes(4).run(sharded_worker.all_reduces, rule, options, "cpu") == [[count, count]] * 4
