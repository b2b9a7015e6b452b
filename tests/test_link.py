"""The link to a CUDA device: what each stream waits for, on streams that write down what is asked of them."""

import itertools
from unittest import mock

import pytest
import torch

from extrap_kernels.link import CudaLink


@pytest.fixture
def log(monkeypatch):
    """Everything that is asked of streams and tensors, in order; streams are called down, up and computing."""
    log, names = mock.MagicMock(), itertools.cycle(["down", "up"])
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: getattr(log, next(names)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: log.computing)
    monkeypatch.setattr(torch.cuda, "stream", log.stream)
    log.stream.return_value.__enter__ = log.enter
    log.stream.return_value.__exit__ = log.leave
    log.leave.return_value = False
    return log


def called(log):
    return [(name, *args) for name, args, _ in log.mock_calls if not name.startswith("stream()")]


def test_download(log):
    """It waits for what is computed, and the allocator waits for it before the gradient's memory is used again."""
    copied = CudaLink(torch.device("cuda:0")).download(log.gradient, log.target)
    assert copied is log.down.record_event.return_value
    calls = called(log)
    names = [name for name, *_ in calls]
    assert calls[:2] == [("down.wait_stream", log.computing), ("stream", log.down)]
    assert names[2:] == ["enter", "target.copy_", "leave", "gradient.record_stream", "down.record_event"]
    log.target.copy_.assert_called_once_with(log.gradient, non_blocking=True)
    log.gradient.record_stream.assert_called_once_with(log.down)


def test_upload(log):
    """It waits for what is computed, which may read the parameters; what is computed next waits for all its copies."""
    copied = CudaLink(torch.device("cuda:0")).upload([(log.host, log.param), (log.other_host, log.other)])
    assert copied is log.up.record_event.return_value
    calls = called(log)
    names = [name for name, *_ in calls]
    assert calls[:2] == [("up.wait_stream", log.computing), ("stream", log.up)]
    assert names[2:] == [
        *("enter", "param.copy_", "other.copy_", "leave"),
        *("up.record_event", "computing.wait_event"),
    ]
    log.param.copy_.assert_called_once_with(log.host, non_blocking=True)
    log.computing.wait_event.assert_called_once_with(copied)


def test_device_has_its_number(log, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert CudaLink(torch.device("cuda")).device == torch.device("cuda:3")
    assert CudaLink(torch.device("cuda:1")).device == torch.device("cuda:1")


@pytest.mark.gpu
def test_host_memory(request):
    device = torch.device(request.config.getoption("--device"))
    if device.type != "cuda":
        pytest.skip("needs a CUDA device: pytest --device cuda")
    like = torch.ones(4, 6, device=device).t()
    memory = CudaLink(device).host_memory(like)
    assert memory.is_pinned() and memory.stride() == like.stride() and memory.dtype == like.dtype
