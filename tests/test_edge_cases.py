"""Gradients, layouts and calls out of the ordinary."""

import itertools
import math

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD
from extrap_kernels.launch import Launch
from extrap_kernels.options import scalars_of

OPTIONS = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05, "noise": "uniform", "noise_std": 0.05}


def make(backend, params, **options):
    return ExtrapSGD(params, **{"backend": backend, **OPTIONS, **options})


def same_run(backend, params, twins, make_gradients, make_twin_gradients=None, steps=3, **options):
    """Two optimizers whose parameters get the same values in their gradients end with the same values."""
    optimizers = [make(backend, ps, **options) for ps in (params, twins)]
    for t in range(steps):
        for k, (p, q) in enumerate(zip(params, twins)):
            values = helpers.random_like(p, 100 * t + k)
            p.grad = make_gradients(values)
            q.grad = (make_twin_gradients or (lambda v: v))(values)
        for optimizer in optimizers:
            optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizers[0]), helpers.snapshot(optimizers[1]))


# Gradients


def reversed_strides(values):
    order = tuple(reversed(range(values.dim())))
    return values.permute(order).contiguous().permute(order)


GRADIENT_LAYOUTS = {
    "channels_last": lambda v: helpers.channels_last(v) if v.dim() == 4 else v,
    "transposed": reversed_strides,
    "gaps": lambda v: torch.stack([v, -v], dim=-1)[..., 0],
    "odd_address": lambda v: torch.cat([v.new_zeros(1), v.reshape(-1)])[1:].view(v.shape),
    "conjugated": lambda v: v.conj().resolve_conj().conj(),
    "negated": lambda v: torch.complex(v, -v).conj().imag if v.dtype in (torch.float32, torch.float64) else v,
}


@pytest.mark.parametrize("lay_out", GRADIENT_LAYOUTS.values(), ids=GRADIENT_LAYOUTS)
@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
def test_layout_of_gradients_changes_nothing(backend, dtype, lay_out):
    params, twins = (helpers.zoo(backend, dtype) for _ in range(2))
    same_run(backend, params, twins, lay_out)


def test_expanded_gradients(backend):
    """As after p.sum().backward()."""
    params, twins = (helpers.zoo(backend) for _ in range(2))
    same_run(backend, params, twins, lambda v: v.new_ones(()).expand(v.shape), torch.ones_like)


FREE_GRAD_DTYPE = pytest.mark.skipif(
    not hasattr(torch.Tensor, "grad_dtype"), reason="this torch has one dtype for both"
)


@FREE_GRAD_DTYPE
@pytest.mark.parametrize("change", [False, True], ids=["always", "from_second_step"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=helpers.describe)
def test_gradients_of_another_dtype(backend, dtype, change):
    """float32 gradients of narrow parameters keep their bits; narrow ones of float32 parameters are widened."""
    other = torch.bfloat16 if dtype == torch.float32 else torch.float32
    params, twins = helpers.zoo(backend, dtype), helpers.zoo(backend, torch.float32)
    with torch.no_grad():
        for p, q in zip(params, twins):
            q.copy_(p)
    optimizers = [make(backend, ps) for ps in (params, twins)]
    for t in range(2):
        for k, (p, q) in enumerate(zip(params, twins)):
            p.grad, p.grad_dtype = None, dtype if change and t == 0 else other
            p.grad = helpers.random_like(q, 100 * t + k).to(p.grad_dtype)
            q.grad = p.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizers[0])[1], helpers.snapshot(optimizers[1])[1])


@FREE_GRAD_DTYPE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=helpers.describe)
def test_nan_stays_nan(backend, dtype):
    """Those of all mantissa bits and of the last one as well, which rounding could carry or cut away."""
    bits = torch.tensor([0x7FFFFFFF, -1, 0x7F800001, 0x7FC00000] * 20, dtype=torch.int32)
    param = torch.nn.Parameter(torch.zeros(len(bits), dtype=dtype, device=helpers.DEVICES[backend]))
    param.grad_dtype = torch.float32
    param.grad = bits.view(torch.float32).to(param.device)
    make(backend, [param]).step()
    assert param.isnan().all()


def test_filter_noise_leaves_vectors_alone(backend):
    """To add noise of no amplitude would make zeros positive."""
    param = torch.full((64,), -0.0, device=helpers.DEVICES[backend], requires_grad=True)
    param.grad = torch.zeros_like(param)
    options = {"momentum": 0, "nesterov": False, "weight_decay": 0, "noise_scale": "filter"}
    make(backend, [param], **options).step()
    assert torch.signbit(param.detach()).all()


def test_no_gradients_at_all(backend):
    params = helpers.zoo(backend)
    optimizer = make(backend, params)
    before = helpers.snapshot(optimizer)
    optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)
    helpers.train(optimizer, steps=1)
    assert all(optimizer.state[p]["step"] == 1 for p in params)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_cleared_gradients(backend, set_to_none):
    """None leaves a parameter alone; zeros are gradients, and momentum goes on."""
    params = helpers.zoo(backend, names=["matrix", "vector"])
    optimizer = make(backend, params)
    helpers.train(optimizer, steps=1)
    before = helpers.snapshot(optimizer)
    optimizer.zero_grad(set_to_none=set_to_none)
    optimizer.step()
    if set_to_none:
        helpers.assert_same_bits(helpers.snapshot(optimizer), before)
    else:
        assert all(optimizer.state[p]["step"] == 2 for p in params)
        assert all((p != q).all() for p, q in zip(params, before[0]))


def test_late_first_gradient_starts_its_own_count(backend):
    """A parameter in step 1 of its own while others are in step 3: moments, dampening and noise as in step 1."""
    late, first = (helpers.zoo(backend, names=["matrix", "vector"], seed=s) for s in (1, 2))
    alone = helpers.zoo(backend, names=["matrix", "vector"], seed=1)
    options = {"nesterov": False, "dampening": 0.5}
    mixed, reference = make(backend, [*late, *first], **options), make(backend, alone, **options)
    for t in range(5):
        helpers.set_gradients(first, seed=t)
        if t >= 2:
            helpers.set_gradients(late, seed=t)
            helpers.set_gradients(alone, seed=t)
            reference.step()
        mixed.step()
    params, state = helpers.snapshot(mixed)
    helpers.assert_same_bits((params[:2], state[:2]), helpers.snapshot(reference))
    assert [int(s["step"]) for s in state] == [3, 3, 5, 5]


SPARSE = torch.sparse_coo_tensor([[0]], [1.0], (3,), check_invariants=True)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("extrapolation", ["past_gradient", "extragradient"])
@pytest.mark.parametrize("warm", [False, True], ids=["first_step", "later_step"])
def test_sparse_gradient_is_an_error_that_changes_nothing(backend, position, extrapolation, warm):
    params = [torch.nn.Parameter(torch.ones(3, device=helpers.DEVICES[backend])) for _ in range(4)]
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = make(backend, groups, extrapolation=extrapolation, noise=None)
    if warm:
        helpers.train(optimizer, steps=1)
    helpers.set_gradients(params, seed=0)
    if extrapolation == "extragradient":
        optimizer.extrapolate()
    params[position].grad = SPARSE.to(params[position].device)
    before = helpers.snapshot(optimizer)
    with pytest.raises(RuntimeError, match="sparse gradients are not supported"):
        optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)
    params[position].grad = params[position].grad.to_dense()
    optimizer.step()


# Local gradients

UNFIT = {
    "shape": torch.ones(4),
    "scalar": torch.ones(()),
    "sparse": SPARSE,
    "device": torch.ones(3, device="meta"),
}


def test_local_gradients_point_the_way_and_averaged_ones_correct(backend):
    (param,) = helpers.zoo(backend, torch.float64, ["matrix"])
    optimizer = ExtrapSGD([param], lr=0.25, extrap_lr=0.5, backend=backend)
    x = param.detach().clone()
    param.grad, local = torch.full_like(param, 2.0), torch.full_like(param, 3.0)
    optimizer.local_gradients[param] = local
    optimizer.step()
    assert optimizer.local_gradients == {}
    torch.testing.assert_close(optimizer.base_of(param), x - 0.5, rtol=0, atol=1e-15)
    torch.testing.assert_close(param.detach(), x - 0.5 - 1.5, rtol=0, atol=1e-15)
    optimizer.step()  # without one, it is the averaged gradient again
    torch.testing.assert_close(param.detach(), x - 1.0 - 1.0, rtol=0, atol=1e-15)


def test_local_gradients_of_extragradient(backend):
    (param,) = helpers.zoo(backend, torch.float64, ["matrix"])
    optimizer = ExtrapSGD([param], lr=0.25, **helpers.EXTRAGRADIENT, backend=backend)
    x = param.detach().clone()
    param.grad, optimizer.local_gradients[param] = torch.ones_like(param), torch.full_like(param, 4.0)
    optimizer.extrapolate()
    assert optimizer.local_gradients == {}
    torch.testing.assert_close(param.detach(), x - 1.0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("extrapolation", ["past_gradient", "extragradient"])
@pytest.mark.parametrize("lr", [0.0, 1e-300])
def test_inner_learning_rate_of_zero_moves_nothing(backend, lr, extrapolation):
    """Also along what is not finite, and where only the precision of the arithmetic makes it a zero."""
    (param,) = helpers.zoo(backend, torch.float32, ["vector"])
    optimizer = ExtrapSGD([param], lr=0.25, extrap_lr=lr, extrapolation=extrapolation, backend=backend)
    x = param.detach().clone()
    if extrapolation == "extragradient":
        param.grad = torch.full_like(param, math.inf)
        optimizer.extrapolate()
        helpers.assert_same_bits(param, x)
    param.grad, optimizer.local_gradients[param] = torch.ones_like(param), torch.full_like(param, math.inf)
    optimizer.step()
    helpers.assert_same_bits(param, x - 0.25)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=helpers.describe)
def test_local_gradients_keep_their_precision(backend, dtype):
    """A float32 copy beside narrow gradients is not rounded to their dtype."""
    (param,) = helpers.zoo(backend, dtype, ["vector"])
    optimizer = ExtrapSGD([param], lr=1.0, extrap_lr=1.0, backend=backend)
    with torch.no_grad():
        param.zero_()
    param.grad = torch.full_like(param, -1.0)
    optimizer.local_gradients[param] = torch.full_like(param, 1.0 + 2.0**-13, dtype=torch.float32)
    optimizer.step()
    assert (param == -(2.0**-13)).all()


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("warm", [False, True], ids=["first_step", "later_step"])
@pytest.mark.parametrize("local", UNFIT.values(), ids=UNFIT)
def test_unfit_local_gradient_is_an_error_that_changes_nothing(backend, position, local, warm):
    params = [torch.nn.Parameter(torch.ones(3, device=helpers.DEVICES[backend])) for _ in range(4)]
    optimizer = make(backend, [{"params": params[:2]}, {"params": params[2:]}])
    if warm:
        helpers.train(optimizer, steps=1)
    helpers.set_gradients(params, seed=0)
    before = helpers.snapshot(optimizer)
    optimizer.local_gradients[params[position]] = local
    with pytest.raises(ValueError, match="local gradient"):
        optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


# Parameters


@pytest.mark.parametrize("layout", [name for name in helpers.LAYOUTS if name != "columns"])
def test_values_do_not_depend_on_the_layout(backend, layout):
    """Each layout against a row-major copy; without noise, whose positions follow the memory."""
    params = helpers.zoo(backend, names=[layout])
    twins = [torch.nn.Parameter(p.detach().contiguous().clone()) for p in params]
    same_run(backend, params, twins, lambda v: v, noise=None)


def test_memory_between_the_elements_stays(backend):
    memory = torch.arange(126.0, device=helpers.DEVICES[backend]).view(9, 14)
    param = torch.nn.Parameter(memory[:, ::2])
    helpers.train(make(backend, [param]), steps=3)
    assert (memory[:, 1::2] == torch.arange(126.0, device=memory.device).view(9, 14)[:, 1::2]).all()
    assert (memory[:, ::2] == param).all()


def moved(param):
    return param.detach().clone()


def in_other_order(param):
    return reversed_strides(param.detach()).clone()


@pytest.mark.parametrize("swap", [moved, in_other_order])
def test_swapped_storage_is_followed(backend, swap):
    """As after module.to(memory_format=...) or any other `p.data = ...`."""
    params, twins = (helpers.zoo(backend, names=["vector", "matrix", "images", "columns"]) for _ in range(2))
    optimizer, plain = make(backend, params, noise=None), make(backend, twins, noise=None)
    for each in (optimizer, plain):
        helpers.train(each, steps=2)
    abandoned = [p.detach() for p in params]
    for p in params:
        p.data = swap(p)
    left = [old.clone() for old in abandoned]
    for each in (optimizer, plain):
        helpers.train(each, steps=2, seed=9)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(plain))
    helpers.assert_same_bits(abandoned, left)


@pytest.mark.parametrize("before, after", list(itertools.permutations(helpers.DTYPES[:3], 2)), ids=helpers.describe)
def test_cast_parameters_go_on_in_their_new_precision(backend, before, after):
    """As after module.double(): like a run of that dtype that resumes from the state."""
    params = helpers.zoo(backend, before)
    optimizer = make(backend, params)
    helpers.train(optimizer, steps=2)
    resumed = make(backend, [torch.nn.Parameter(p.detach().to(after)) for p in params])
    resumed.load_state_dict(optimizer.state_dict())
    for p in params:
        p.grad, p.data = None, p.data.to(after)
    for each in (optimizer, resumed):
        helpers.train(each, steps=2, seed=9)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(resumed))


def test_lazily_conjugated_parameter(backend):
    values = helpers.random_like(torch.empty(5, dtype=torch.complex64, device=helpers.DEVICES[backend]), 0)
    param, twin = torch.nn.Parameter(values.conj()), torch.nn.Parameter(values.conj().resolve_conj())
    same_run(backend, [param], [twin], lambda v: v)


@pytest.mark.parametrize("dims", [64, 65, 100])
def test_many_dimensions(backend, dims):
    """torch's own arithmetic ends at 64; more are computed or refused, and overrun no array."""
    param = torch.nn.Parameter(torch.ones([1] * (dims - 1) + [2], device=helpers.DEVICES[backend]))
    param.grad = torch.ones_like(param)
    optimizer = ExtrapSGD([param], lr=0.25, backend=backend)
    try:
        optimizer.step()
    except (RuntimeError, ValueError) as error:
        assert dims > 64 and "dim" in str(error)
    else:
        assert param.flatten().tolist() == [0.5, 0.5]


def test_overlapping_parameter_is_refused(backend):
    params = helpers.zoo(backend, names=["matrix"])
    shared = torch.nn.Parameter(torch.ones(3, 1, device=helpers.DEVICES[backend]).expand(3, 4))
    with pytest.raises(ValueError, match=r"shape \(3, 4\) and strides \(1, 0\) has elements that share memory"):
        make(backend, [*params, shared])
    optimizer = make(backend, params)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.add_param_group({"params": [shared]})
    helpers.train(optimizer, steps=1)
    assert len(optimizer.param_groups) == 1


def test_step_is_seen_by_autograd(backend):
    """A backward pass through values from before the step is an error, as with any optimizer of torch."""
    params = helpers.zoo(backend, names=["matrix", "columns"])
    optimizer = make(backend, params)
    losses = [p.square().sum() for p in params]
    helpers.set_gradients(params, seed=0)
    optimizer.step()
    for loss in losses:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_default_device_does_not_matter(backend):
    """Nothing is made on the default device but what belongs there."""
    params, twins = (helpers.zoo(backend) for _ in range(2))
    optimizer, plain = make(backend, params), make(backend, twins)
    for each, device in ((optimizer, "meta"), (plain, "cpu")):
        helpers.set_gradients(helpers.parameters_of(each), seed=0)
        with torch.device(device):
            each.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(plain))


def test_sums_to_share_are_on_the_device_of_the_parameters(backend):
    """Also where there are none: the process group of the parameters may know no other device."""
    (param,) = helpers.zoo(backend, names=["vector"])
    optimizer = make(backend, [param])
    helpers.train(optimizer, steps=1)
    (executor,), group = optimizer.stepper._plans[0, None].executors, optimizer.param_groups[0]
    launch = Launch.of(group, scalars_of(group), device=param.device if executor.on_device else None)
    assert executor.bind([optimizer.state[param]], {}) == []
    with torch.device("meta"):
        assert executor.square_sums(launch).device == param.device


def test_step_hooks_are_called_once(backend):
    params = helpers.zoo(backend, names=["matrix"])
    optimizer = make(backend, params)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(params[0].detach().clone()))
    optimizer.register_step_post_hook(lambda *_: calls.append(params[0].detach().clone()))
    helpers.train(optimizer, steps=1)
    before, after = calls
    assert not torch.equal(before, after) and torch.equal(after, params[0])


def test_groups_with_options_of_their_own(backend):
    """One optimizer of several groups is several optimizers, but for the index that its noise counts on."""
    choices = [
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.02, "extrapolation": "past_update", "momentum": 0.5, "nesterov": True},
        {"lr": 0.3, "extrapolation": None, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
        {"lr": torch.tensor(0.05), "extrap_ratio": 2.0},
        {"lr": 0.05, "extrap_lr": torch.tensor(0.2), "noise": "gaussian", "noise_scale": "filter"},
    ]
    choices.reverse()  # the noisy group first, where the indices agree
    together = ExtrapSGD([{"params": helpers.zoo(backend), **choice} for choice in choices], backend=backend)
    apart = [ExtrapSGD(helpers.zoo(backend), backend=backend, **choice) for choice in choices]
    for t in range(3):
        for group, alone in zip(together.param_groups, apart):
            helpers.set_gradients(group["params"], seed=t)
            helpers.train(alone, steps=1, seed=t)
        together.step()
    params, state = helpers.snapshot(together)
    expected = [helpers.snapshot(alone) for alone in apart]
    helpers.assert_same_bits((params, state), (sum((e[0] for e in expected), []), sum((e[1] for e in expected), [])))


EDITS = {
    "other parameter": lambda groups, new: groups[0]["params"].__setitem__(0, new),
    "other list": lambda groups, new: groups[1].update(params=[new]),
    "one more": lambda groups, new: groups[1]["params"].append(new),
    "one less": lambda groups, new: groups[0]["params"].pop(),
    "moved": lambda groups, new: groups[1]["params"].append(groups[0]["params"].pop()),
    "group removed": lambda groups, new: groups.pop(0),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edited_groups_are_followed(backend, edit):
    """As by code that prunes or grows a model: those step that the groups hold now, at the rate of their group."""
    params = [torch.nn.Parameter(torch.zeros(3, device=helpers.DEVICES[backend])) for _ in range(4)]
    groups = [{"params": params[:2], "lr": 0.5}, {"params": [params[2]], "lr": 0.25}]
    optimizer = ExtrapSGD(groups, extrapolation=None, backend=backend)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.step()
    before = [p.detach().clone() for p in params]
    edit(optimizer.param_groups, params[3])
    optimizer.step()
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    helpers.assert_same_bits([p.detach() for p in params], [b - rates.get(p, 0) for p, b in zip(params, before)])


def test_grouping_changes_no_bit(backend):
    """Nor the noise, which counts the parameters over all groups, also those without a gradient."""
    params, twins = (helpers.zoo(backend) for _ in range(2))
    grouped = make(backend, [{"params": params[:4]}, {"params": params[4:9]}])
    grouped.add_param_group({"params": params[9:]})
    together = make(backend, twins)
    for t in range(3):
        for ps in (params, twins):
            helpers.set_gradients(ps, seed=t)
            ps[1].grad = ps[6].grad = None
        grouped.step()
        together.step()
    helpers.assert_same_bits(helpers.snapshot(grouped), helpers.snapshot(together))
