"""``python -m extrap_kernels selftest``: its checks, on the device that ``pytest --device`` names."""

import subprocess
import sys

import pytest
import torch

from extrap_kernels import selftest


@pytest.fixture
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def gpu(device):
    if device.type != "cuda":
        pytest.skip("needs a CUDA device: pytest --device cuda")
    return device


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", selftest.DTYPES, ids=str)
@pytest.mark.parametrize("name", selftest.optimizers())
def test_parity(device, name, dtype):
    found = selftest.parity(name, dtype, device, "auto")
    assert found.passed, found
    assert found.cases == len(list(selftest.perturbations()))


@pytest.mark.gpu
def test_graph_capture(gpu):
    assert selftest.graph_capture(gpu, "auto")


@pytest.mark.gpu
def test_two_streams(gpu):
    assert selftest.two_streams(gpu, "auto")


@pytest.mark.gpu
def test_bandwidth(device):
    found = selftest.bandwidth(device, "auto", numel=1_000_000, rounds=3)
    assert found.step > 0 and found.add > 0


def test_a_wrong_step_fails(monkeypatch):
    train = selftest._train

    def train_and_nudge(optimizer, params):
        train(optimizer, params)
        if optimizer.backend != "reference":
            optimizer.base_of(params[1]).mul_(1 + 1e-5)

    monkeypatch.setattr(selftest, "_train", train_and_nudge)
    assert not selftest.parity("ExtrapSGD", torch.float32, torch.device("cpu"), "auto").passed


@pytest.mark.parametrize(
    "arguments, expected",
    [(["--device", "cuda"], "--device cpu"), (["--backend", "fast"], "Invalid backend value: 'fast'")],
)
def test_what_is_not_there_is_said(arguments, expected):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    command = [sys.executable, "-m", "extrap_kernels", "selftest", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and expected in done.stderr and "Traceback" not in done.stderr
