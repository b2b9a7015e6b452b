"""What the CUDA kernels' code does to memory, access by access: the traffic floor of docs/design.md and no more."""

from collections import Counter

import helpers
import numpy as np
import pytest
import torch

from extrap_kernels import _C

pytestmark = helpers.needs_emulation
RULES = {
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "adam": ("adam", {"weight_decay": 0.1}),
    "adamw": ("adamw", {"weight_decay": 0.1}),
}
# Bytes read and written for each parameter: x, g, the buffers, y; all of the state in float32.
STATE_BUFFERS = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
SIZES = (1, 3, 4, 255, 1024, 4095, 4096, 4097, 12_289)


def floor(rule, dtype, local=False):
    state = 8 if dtype == torch.float64 else 4
    buffers = STATE_BUFFERS[rule]
    gradients = (2 if local else 1) * dtype.itemsize
    return state * (1 + buffers) + gradients, state * (1 + buffers) + dtype.itemsize


def make(rule, dtype, sizes=SIZES, offset=0, local=False, **options):
    """An optimizer that has taken a step, with gradients for the next; `offset` elements off the alignment."""
    name, own = RULES[rule]
    params = [torch.nn.Parameter(torch.linspace(-1, 1, n + offset).to(dtype)[offset:]) for n in sizes]
    optimizer = helpers.RULES[name].optimizer(params, lr=0.1, backend="cuda-emulated", **own, **options)
    for t in range(2):
        for k, p in enumerate(params):
            p.grad = helpers.random_like(p, 10 * t + k)
            if local:
                optimizer.local_gradients[p] = helpers.random_like(p, 10 * t + k + 5)
        if t == 0:
            optimizer.step()
    return optimizer, params


def optimizer_of_copies(params, optimizer):
    """An optimizer of its own in the state of another, with copies of its parameters and gradients."""
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    for copy, p in zip(copies, params):
        copy.grad = p.grad.clone()
    other = type(optimizer)(copies, lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    return other


def buffers_of(optimizer, params):
    """(tensor, bytes an access may have) of all that a step reads and of all that it writes."""
    written = [p.detach() for p in params]
    state = [value for p in params for name, value in optimizer.state[p].items() if name != "step"]
    gradients = [p.grad for p in params] + list(optimizer.local_gradients.values())
    return state + gradients, state + written


def each_byte(spans):
    """Addresses of all bytes of (address, size) spans, sorted, as often as they occur."""
    addresses, sizes = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    before = np.cumsum(sizes) - sizes
    return np.sort(np.repeat(addresses - before, sizes) + np.arange(sizes.sum()))


def bytes_touched(accesses, *, store):
    return each_byte([(address, size) for address, size, is_store, _ in accesses if is_store == store])


def bytes_of(*lists):
    return each_byte([(t.data_ptr(), t.numel() * t.element_size()) for tensors in lists for t in tensors])


@pytest.mark.parametrize("local", [False, True], ids=["", "local"])
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=helpers.describe)
@pytest.mark.parametrize("rule", RULES)
def test_every_byte_once_and_no_other(rule, dtype, offset, local):
    optimizer, params = make(rule, dtype, offset=offset, local=local)
    read, written = (bytes_of(tensors) for tensors in buffers_of(optimizer, params))
    accesses = _C.testing.recorded_accesses(optimizer.step)
    assert np.array_equal(bytes_touched(accesses, store=False), read)
    assert np.array_equal(bytes_touched(accesses, store=True), written)
    assert all(address % size == 0 for address, size, *_ in accesses)
    loads, stores = floor(rule, dtype, local)
    assert len(read) == loads * sum(SIZES)
    assert len(written) == stores * sum(SIZES)


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=helpers.describe)
@pytest.mark.parametrize(
    "rule, state_dtype, moved",
    [
        ("sgd", torch.bfloat16, 10),
        ("momentum", torch.bfloat16, 14),
        ("adamw", torch.bfloat16, 18),
        ("momentum", torch.uint8, 12.125),
        ("adamw", torch.uint8, 14.25),
    ],
    ids=helpers.describe,
)
def test_compact_state_of_16_bit_parameters(rule, state_dtype, moved, dtype, offset):
    """The base iterate in 24 bits is read and written once, as all else is; the exponents are read by each lane."""
    name, own = RULES[rule]
    shape = (258, 16) if state_dtype == torch.uint8 else (4 * 1031 + 3,)
    numel = torch.Size(shape).numel()
    param = torch.nn.Parameter(torch.linspace(-1, 1, numel + offset).to(dtype)[offset:].view(shape))
    optimizer = helpers.RULES[name].optimizer([param], backend="cuda-emulated", state_dtype=state_dtype, **own)
    helpers.train(optimizer, steps=1)
    helpers.set_gradients([param], seed=1)
    read, written = buffers_of(optimizer, [param])
    accesses = _C.testing.recorded_accesses(optimizer.step)
    assert optimizer.state[param]["base_low"].dtype == torch.uint8
    assert np.array_equal(np.unique(bytes_touched(accesses, store=False)), bytes_of(read))
    assert np.array_equal(bytes_touched(accesses, store=True), bytes_of(written))
    assert len(bytes_of(read)) + len(bytes_of(written)) == moved * numel
    exponents = {value.data_ptr(): value.nbytes for key, value in optimizer.state[param].items() if "exponent" in key}
    repeated = [a for a, *_ in accesses if any(first <= a < first + size for first, size in exponents.items())]
    assert sum(size for a, size, *_ in accesses) - len(repeated) + 2 * sum(exponents.values()) == moved * numel


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize(
    "rule, extrapolation, moved",
    [
        ("sgd", None, 12),
        ("momentum", None, 20),
        ("adamw", None, 28),
        ("momentum", "momentum", 20),
        ("adamw", "momentum", 28),
    ],
)
def test_a_parameter_that_holds_x_is_read_and_written_once(rule, extrapolation, moved, offset):
    """Or of which x is recovered: a step costs what one of torch.optim does."""
    optimizer, params = make(rule, torch.float32, offset=offset, extrapolation=extrapolation)
    expected = optimizer_of_copies(params, optimizer)
    accesses = _C.testing.recorded_accesses(optimizer.step)
    expected.step()
    assert all(("inner_lr" in optimizer.state[p]) == (extrapolation is not None) for p in params)
    buffers = [s for p in params for s in optimizer.state[p].values() if s.shape == p.shape and s.numel() > 0]
    held = [p.detach() for p in params]
    assert np.array_equal(bytes_touched(accesses, store=False), bytes_of(held, buffers, [p.grad for p in params]))
    assert np.array_equal(bytes_touched(accesses, store=True), bytes_of(held, buffers))
    assert sum(size for _, size, *_ in accesses) == moved * sum(SIZES)
    for p, other in zip(params, expected.param_groups[0]["params"]):
        assert torch.equal(p, other)


@pytest.mark.parametrize("noise", helpers.NOISES[1:], ids=helpers.describe)
def test_noise_moves_no_bytes_in_the_step(noise):
    """The rms is taken from x before; by row, a tensor of one dim has no noise."""
    optimizer, params = make("momentum", torch.float32, **noise)
    read, written = buffers_of(optimizer, params)
    accesses = _C.testing.recorded_accesses(optimizer.step)
    assert np.array_equal(bytes_touched(accesses, store=True), bytes_of(written))
    again = [optimizer.base_of(p) for p in params] if noise["noise_scale"] == "tensor" else []
    assert np.array_equal(bytes_touched(accesses, store=False), bytes_of(read, again))


@pytest.mark.parametrize(
    "rule, extra", [("lars", ("base", "grad")), ("lamb", ("base", "grad", "exp_avg", "exp_avg_sq"))]
)
def test_norms_read_what_they_are_taken_of_once_more(rule, extra):
    params = [torch.nn.Parameter(torch.linspace(-1, 1, n)) for n in SIZES]
    optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend="cuda-emulated")
    helpers.train(optimizer, steps=1)
    helpers.set_gradients(params, seed=1)
    read, written = buffers_of(optimizer, params)
    again = [p.grad if name == "grad" else optimizer.state[p][name] for p in params for name in extra]
    accesses = _C.testing.recorded_accesses(optimizer.step)
    assert np.array_equal(bytes_touched(accesses, store=False), bytes_of(read, again))
    assert np.array_equal(bytes_touched(accesses, store=True), bytes_of(written))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=helpers.describe)
@pytest.mark.parametrize("rule", RULES)
def test_aligned_tensors_are_moved_four_numbers_at_a_time(rule, dtype):
    """Two of float64; but for the end of a tensor."""
    optimizer, _ = make(rule, dtype, sizes=(4096, 12_288 + 3))
    sizes = Counter(size for _, size, *_ in _C.testing.recorded_accesses(optimizer.step))
    part = 2 if dtype == torch.float64 else 4
    wide = {16, part * dtype.itemsize}
    tail = (12_288 + 3) % part
    tensors = 2 * (2 + STATE_BUFFERS[rule])
    assert sum(count for size, count in sizes.items() if size not in wide) == tail * tensors
    assert sum(sizes[size] for size in wide) == (4096 + 12_288 + 3) // part * tensors


def test_an_unaligned_tensor_leaves_the_others_their_wide_accesses():
    params = [torch.nn.Parameter(torch.ones(4097)[1:]), torch.nn.Parameter(torch.ones(4096))]
    optimizer = helpers.RULES["sgd"].optimizer(params, lr=0.1, backend="cuda-emulated")
    helpers.set_gradients(params, seed=0)
    optimizer.step()
    accesses = _C.testing.recorded_accesses(optimizer.step)
    aligned = range(params[1].data_ptr(), params[1].data_ptr() + 4 * 4096)
    assert {size for address, size, *_ in accesses if address in aligned} == {16}
    assert {size for address, size, *_ in accesses if address not in aligned} == {4, 16}


def test_a_skipped_step_touches_nothing():
    optimizer, _ = make("adam", torch.float32)
    optimizer.found_inf = torch.ones(1)
    assert _C.testing.recorded_accesses(optimizer.step) == []
