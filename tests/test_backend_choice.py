"""Which backend is taken, and what is said where one is not there."""

import subprocess
import sys

import pytest
import torch

from extrap_kernels import ExtrapSGD, backends, triton_kernels
from extrap_kernels.__main__ import main

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
    monkeypatch.setattr(triton_kernels, "missing_reason", lambda: reason)
    assert backends.resolve("auto", torch.device("cuda")).name == backend


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
        (line,) = (line for line in lines if line.split()[0] == name)
        assert ("not available: " in line) == (name in MISSING)
