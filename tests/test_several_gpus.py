"""A model over several GPUs, with fake tensors in place of GPUs: every executor gets its scalars on its own device."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from extrap_kernels import ExtrapSGD, capture, options
from extrap_kernels.launch import GradScaling, Launch, Phase

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="pretends that there are two GPUs")


class Recorder:
    """An executor that writes down its launches."""

    on_device = True

    def __init__(self, device):
        self.device, self.launches = device, []

    def add_gradient_square_sum(self, total):
        assert total.device == self.device
        total += 1.0

    def run(self, launch):
        self.launches.append(launch)


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(capture, "is_capturing", lambda device: False)
    with FakeTensorMode():
        yield


@pytest.fixture
def optimizer():
    return ExtrapSGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, max_grad_norm=1.0)


def step(optimizer, scale, found_inf, monkeypatch):
    """Step by executors on both GPUs; return the norm and the executors."""
    executors = [Recorder(FIRST), Recorder(SECOND)]
    stepper = optimizer.stepper
    monkeypatch.setattr(stepper, "bind", lambda *_: executors)
    monkeypatch.setattr(stepper, "_plans", {(0, None): SimpleNamespace(executors=executors)})
    monkeypatch.setattr(stepper, "on_device", True)
    return stepper.run(optimizer, [0], Phase.UPDATE, scale, found_inf), executors


@pytest.mark.parametrize("lies_on", [FIRST, SECOND], ids=str)
def test_scaled_and_clipped_step(optimizer, fakes, lies_on, monkeypatch):
    """GradScaler's tensors are on the device of the loss, the norm is taken on that of the first parameters."""
    optimizer.param_groups[0]["lr"] = torch.full((), 0.1, dtype=torch.float16, device=lies_on)
    scale, found_inf = (torch.full((), value, device=lies_on) for value in (2.0, 0.0))
    norm, executors = step(optimizer, scale, found_inf, monkeypatch)
    assert norm.device == FIRST
    for executor in executors:
        (launch,) = executor.launches
        assert {"lr", "grad_scale", "clip"} <= set(launch.on_device)
        assert {tensor.device for tensor in (*launch.on_device.values(), launch.found_inf)} == {executor.device}
        assert {tensor.dtype for tensor in launch.on_device.values()} <= {torch.float32, torch.float64}


def test_what_lies_there_already_is_not_copied(optimizer, fakes):
    scale, found_inf = (torch.full((), value, device=SECOND) for value in (2.0, 0.0))
    group = optimizer.param_groups[0]
    scaling = GradScaling(scale, found_inf=found_inf)
    launch = Launch.of(group, options.scalars_of(group), scaling=scaling, device=SECOND)
    assert launch.on_device == {"grad_scale": scale} and launch.found_inf is found_inf


def test_numbers_on_the_host_stay_there(optimizer):
    """To send them to a GPU as tensors would take a copy each."""
    group = optimizer.param_groups[0]
    launch = Launch.of(group, options.scalars_of(group), scaling=GradScaling(torch.tensor(2.0)), device=SECOND)
    assert launch.on_device == {}
