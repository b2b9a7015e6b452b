"""Parameters that share memory are stepped one after the other, as torch steps them."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdam, ExtrapSGD
from extrap_kernels.layout import turns

pytestmark = pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("numel", [1, 4097, 300_000])
def test_a_parameter_listed_twice(backend, numel, threads):
    if numel > 4097 and backend != "cpu":
        pytest.skip("for several threads")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = []
        for dtype, make in (
            (torch.float64, lambda p: torch.optim.Adam([p, p], lr=0.1, foreach=False)),
            (torch.float32, lambda p: ExtrapAdam([p, p], lr=0.1, extrapolation=None, backend=backend)),
        ):
            p = torch.nn.Parameter(torch.ones(numel, dtype=dtype, device=helpers.DEVICES[backend]))
            optimizer = make(p)
            for t in range(4):
                p.grad = torch.full_like(p, 0.5 - t)
                optimizer.step()
            results.append(p.detach().double())
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_twice_with_extrapolation(backend):
    """Both updates start from one base iterate and one momentum."""
    p = torch.nn.Parameter(torch.ones(5, device=helpers.DEVICES[backend]))
    optimizer = ExtrapSGD([p, p], lr=0.25, momentum=0.5, backend=backend)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.base_of(p).tolist() == [1 - 0.25 - 0.25 * 1.5] * 5
    assert optimizer.state[p]["step"] == 2
    assert p.tolist() == [1 - 0.25 - 0.25 * 1.5 - 0.25] * 5


def test_overlapping_parameters(backend):
    memory = torch.arange(8.0, device=helpers.DEVICES[backend])
    params = [torch.nn.Parameter(memory[span]) for span in (slice(0, 4), slice(2, 6), slice(6, 8), slice(3, 7))]
    optimizer = ExtrapSGD(params, lr=1.0, extrapolation=None, backend=backend)
    for k, p in enumerate(params):
        p.grad = torch.full_like(p, 10.0**k)
    optimizer.step()
    taken = torch.tensor([1.0, 1, 11, 1011, 1010, 1010, 1100, 100])
    assert torch.equal(memory.cpu(), torch.arange(8.0) - taken)


def test_extragradient_refuses_them(backend):
    """The second extrapolation would start from the first one's point."""
    p = torch.nn.Parameter(torch.ones(3, device=helpers.DEVICES[backend]))
    optimizer = ExtrapSGD([("weight", p), ("tied", p)], lr=1.0, extrapolation="extragradient", backend=backend)
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 \('tied', .*\) shares memory .* list it once"):
        optimizer.extrapolate()
    assert p.tolist() == [1.0] * 3 and not optimizer.state


def test_turns():
    memory = torch.zeros(4, 6)
    columns = [memory[:, 1:3], memory[:, 0], torch.zeros(3), memory[2]]
    assert turns(columns) == [0, 1, 0, 2]  # where there are gaps, what lies in them counts
    empty = torch.zeros(0)
    assert turns([empty, empty, memory[:0], torch.zeros(2, device="meta")]) == [0, 1, 0, 0]
    assert turns([memory[3], memory[2], memory[1]]) == [0, 0, 0]
    assert turns([]) == []
