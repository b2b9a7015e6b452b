"""Which backend is taken, and what is said where one is not there."""

import dataclasses
import re
import subprocess
import sys

import pytest
import torch

import extrap_kernels
from extrap_kernels import _C, ExtrapSGD, backends, triton_kernels
from extrap_kernels.__main__ import main
from extrap_kernels.backends.cuda import has_code

MISSING = [name for name in backends.BACKENDS if backends.missing_reason(name) is not None]


def one_parameter():
    return [torch.nn.Parameter(torch.ones(2))]


def test_unknown_backend_is_named():
    with pytest.raises(ValueError, match="Invalid backend value: 'fpga'.*'reference'"):
        ExtrapSGD(one_parameter(), backend="fpga")


@pytest.mark.parametrize("name", MISSING)
def test_missing_backend_says_why(name):
    with pytest.raises(RuntimeError, match=f"backend '{name}' is not available: .+"):
        ExtrapSGD(one_parameter(), backend=name)


def test_auto_takes_the_fast_backend():
    assert backends.resolve("auto", torch.device("cpu")).name == "cpu"


@pytest.mark.parametrize("reason, backend", [(None, "triton"), ("no driver", "reference")])
def test_auto_takes_triton_for_tensors_of_a_gpu(monkeypatch, reason, backend):
    without_kernels = dataclasses.replace(backends.BACKENDS["cuda"], missing_reason=lambda: "not built")
    monkeypatch.setitem(backends.BACKENDS, "cuda", without_kernels)
    monkeypatch.setattr(triton_kernels, "missing_reason", lambda: reason)
    assert backends.resolve("auto", torch.device("cuda")).name == backend


@pytest.mark.parametrize(
    "capability, archs, runs",
    [
        ((9, 0), [80, 90], True),
        ((8, 6), [80, 90], True),  # code of 8.0
        ((8, 0), [86, 90], False),
        ((8, 0), [90], False),
        ((7, 5), [80, 86, 89, 90, 100, 120], False),
        ((10, 0), [80, 90], True),  # PTX of 9.0
        ((10, 3), [100, 120], True),
        ((11, 0), [100, 120], False),
        ((12, 1), [100, 120], True),
        ((8, 0), [90, 80], True),
        ((9, 0), [100, 80], True),  # PTX of the last one, which need not be the newest
    ],
)
def test_gpus_that_a_build_has_code_for(capability, archs, runs):
    assert has_code(capability, archs) == runs


@pytest.fixture
def gpus(monkeypatch):
    """A machine with a T4 and an H100, and kernels for the latter."""
    available = dataclasses.replace(backends.BACKENDS["cuda"], missing_reason=lambda: None)
    monkeypatch.setitem(backends.BACKENDS, "cuda", available)
    monkeypatch.setattr(_C, "cuda_archs", [90])
    monkeypatch.setattr(triton_kernels, "missing_reason", lambda: None)
    monkeypatch.setattr(triton_kernels, "takes_device", lambda device: device.type == "cuda")
    gpus = [("T4", (7, 5)), ("H100", (9, 0))]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpus[device.index][0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpus[device.index][1])


def test_auto_asks_for_code_on_each_gpu(gpus, monkeypatch):
    assert [backends.resolve("auto", torch.device("cuda", i)).name for i in range(2)] == ["triton", "cuda"]
    monkeypatch.setattr(triton_kernels, "missing_reason", lambda: "no Triton")
    assert backends.resolve("auto", torch.device("cuda", 0)).name == "reference"


def test_cuda_on_a_gpu_without_code_names_the_remedy(gpus):
    assert backends.resolve("cuda", torch.device("cuda", 1)).name == "cuda"
    message = r"'cuda' is not available on device cuda:0: .* 7.5, .* EXTRAP_CUDA_ARCHS=75, or use backend='triton'"
    with pytest.raises(RuntimeError, match=message):
        backends.resolve("cuda", torch.device("cuda", 0))


def test_info_names_the_backend_of_each_gpu(gpus, monkeypatch, capsys):
    monkeypatch.setattr(_C, "cuda_built", True)
    monkeypatch.setattr(_C, "cuda_version", "13.0")
    monkeypatch.setattr(sys, "argv", ["extrap_kernels", "info"])
    main()
    said = re.sub(r" +", " ", capsys.readouterr().out)
    assert "CUDA 13.0 kernels for architectures [90], the last one in PTX, too" in said
    assert "\n cuda:0 T4 'triton' its compute capability" in said and "\n cuda:1 H100 'cuda' \n" in said


def test_backend_of_another_device_says_so(monkeypatch):
    monkeypatch.setattr(triton_kernels, "missing_reason", lambda: None)
    for name, device in (("triton", "cpu"), ("cpu", "cuda")):
        with pytest.raises(RuntimeError, match=f"'{name}' cannot step a parameter on device {device}; use backend="):
            backends.resolve(name, torch.device(device))


WITHOUT_NATIVE_MODULE = """
import sys

sys.modules["extrap_kernels._C"] = None  # importing it raises ImportError
import torch
from extrap_kernels import ExtrapSGD

param = torch.nn.Parameter(torch.ones(2))
param.grad = torch.ones(2)
ExtrapSGD([param], lr=0.25).step()
assert (param == 0.5).all()
try:
    ExtrapSGD([param], backend="cpu")
except RuntimeError as error:
    assert "extrap_kernels._C cannot be imported" in str(error) and "backend='reference'" in str(error)
else:
    raise AssertionError("no error for a backend that is not there")
"""


def test_without_native_module():
    subprocess.run([sys.executable, "-c", WITHOUT_NATIVE_MODULE], check=True)


def test_info_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["extrap_kernels", "info"])
    main()
    lines = capsys.readouterr().out.splitlines()
    for name in backends.BACKENDS:
        (line,) = (line for line in lines[:-4] if line.split()[:1] == [name])
        assert ("not available: " in line) == (name in MISSING)


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["extrap_kernels", "--version"])
    with pytest.raises(SystemExit, match="^0$"):
        main()
    assert capsys.readouterr().out.strip() == extrap_kernels.__version__
