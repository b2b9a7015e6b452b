"""``python -m extrap_kernels selftest``: its checks, on the device that ``pytest --device`` names."""

import re

import pytest
import torch
from late_link import LateLink, PromptLink

from extrap_kernels import _C, backends, machine, selftest
from extrap_kernels.link import CudaLink


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
    assert found.cases == len(list(selftest.perturbations(name, dtype)))


@pytest.mark.gpu
def test_graph_capture(gpu):
    assert selftest.graph_capture(gpu, "auto")


@pytest.mark.gpu
def test_two_streams(gpu):
    assert selftest.two_streams(gpu, "auto")


@pytest.mark.gpu
def test_offload_on_a_gpu(gpu):
    assert selftest.offloaded(CudaLink(gpu))


def test_offload():
    assert selftest.offloaded(PromptLink())
    assert not selftest.offloaded(LateLink()), "the accelerator computes with parameters that are on their way"


@pytest.mark.gpu
def test_figures_of_a_bug_report(device):
    backend = backends.resolve("auto", device).name
    found = selftest.figures(device, backend, numel=1_000_000)
    of_device = ("GPU", "driver", "CUDA") if device.type == "cuda" else ("processor", "threads", "instruction set")
    assert {*of_device, "backend", "torch", "step", "bandwidth", "y.copy_(x)"} <= set(found)
    assert re.fullmatch(r"[\d.e+]+ ms for one float32 tensor of 1,000,000", found["step"])
    without_speed = selftest.figures(device, "reference", numel=0)
    assert "step" not in without_speed and without_speed["backend"] == "reference"


def test_a_step_as_fast_as_a_copy_takes_three_times_as_long(monkeypatch):
    monkeypatch.setattr(selftest, "_seconds", lambda action, ahead, device: 1.0 if action is ahead else 3.0)
    assert selftest.speed(torch.device("cpu"), "cpu", numel=1000) == selftest.Speed(3.0, 8000.0, 8000.0)


def test_figures_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(machine.collect_env, "run", lambda command: (0, "Driver Version: 580.65.06   CUDA", ""))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(_C, "cuda_version", "13.0")
    found = {
        "GPU": "H100",
        "compute capability": "9.0",
        "driver": "580.65.06",
        "CUDA": "13.0 of the kernels, 12.8 of torch",
    }
    assert machine.describe(torch.device("cuda")) == found
    monkeypatch.setattr(machine.collect_env, "run", lambda command: (127, "", "not found"))
    assert machine.describe(torch.device("cuda"))["driver"].startswith("unknown")


def test_figures_are_the_last_lines(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "DTYPES", ())
    monkeypatch.setattr(selftest, "figures", lambda device, backend, numel: {"backend": backend, "threads": "2"})
    assert selftest.run(*selftest.chosen("cpu", "auto"))
    lines = [line.split() for line in capsys.readouterr().out.split("for a bug report")[1].splitlines() if line.strip()]
    assert lines[-2:] == [["backend", "cpu"], ["threads", "2"]]


def test_a_wrong_step_fails(monkeypatch):
    train = selftest._train

    def train_and_nudge(optimizer, params):
        train(optimizer, params)
        if optimizer.backend != "reference":
            optimizer.base_of(params[1]).mul_(1 + 1e-5)

    monkeypatch.setattr(selftest, "_train", train_and_nudge)
    assert not selftest.parity("ExtrapSGD", torch.float32, torch.device("cpu"), "auto").passed
