"""torch.optim.swa_utils.AveragedModel: averages the base iterate, where update_parameters() runs at it."""

import pathlib
import re
import runpy

import helpers
import pytest
import torch
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

from extrap_kernels import ExtrapSGD

STEPS = 6


def run(backend, average, averaged_from=0):
    """Train for some steps; returns the model, its average, and the base iterates that went into it."""
    torch.manual_seed(0)
    device = helpers.DEVICES[backend]
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)).to(device)
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, momentum=0.9, noise="gaussian", backend=backend)
    scheduler = SWALR(optimizer, swa_lr=0.05)
    averaged = AveragedModel(model, **average)
    visited = []
    for t in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(16, 4).to(device)).square().mean().backward()
        optimizer.step()
        scheduler.step()
        y = [p.detach().clone() for p in model.parameters()]
        if t >= averaged_from:
            with optimizer.base_parameters():
                averaged.update_parameters(model)
            visited.append([optimizer.base_of(p).clone() for p in model.parameters()])
        helpers.assert_same_bits([p.data for p in model.parameters()], y)
    return model, averaged, visited


def test_equal_weights(backend):
    model, averaged, visited = run(backend, {}, averaged_from=2)
    expected = [torch.stack(each).double().mean(0).float() for each in zip(*visited)]
    torch.testing.assert_close([p.data for p in averaged.parameters()], expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(AssertionError):
        torch.testing.assert_close([p.data for p in model.parameters()], expected, rtol=1e-3, atol=1e-3)


def test_exponential_average(backend):
    _, averaged, visited = run(backend, {"multi_avg_fn": get_ema_multi_avg_fn(0.5)})
    expected = visited[0]
    for each in visited[1:]:
        expected = [(a + b) / 2 for a, b in zip(expected, each)]
    torch.testing.assert_close([p.data for p in averaged.parameters()], expected, rtol=1e-6, atol=1e-7)


def test_batch_statistics_of_the_average(backend):
    """update_bn: the statistics are those of the averaged weights, not of the extrapolated ones."""
    _, averaged, _ = run(backend, {})
    data = torch.randn(64, 4).to(helpers.DEVICES[backend])
    update_bn([data], averaged)
    hidden = averaged.module[0](data)
    torch.testing.assert_close(averaged.module[1].running_mean, hidden.mean(0))
    assert averaged(data).isfinite().all()


def test_example(capsys):
    example = pathlib.Path(__file__).parents[2] / "examples" / "averaged_model.py"
    runpy.run_path(str(example), run_name="__main__")
    shown = re.search(r"error (\S+), last iterate\nerror (\S+), average", capsys.readouterr().out)
    assert float(shown[2]) < float(shown[1])
