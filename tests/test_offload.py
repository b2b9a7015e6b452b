"""CPU offload: the bits of the same optimizer over parameters on the host, copies in order, and what is refused."""

import copy
import gc
import pickle
import re

import helpers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from late_link import LateLink
from test_release import RULES, SMALL, Net, loss_of
from torch import nn

from extrap_kernels import ExtrapAdamW, ExtrapSGD, offload, param_groups, release_gradients
from extrap_kernels.offload import offload_over


def offloaded(model, optimizer, bucket_mb=SMALL):
    model.link = LateLink()
    model.link.watch(model)
    return offload_over(model.link, model, optimizer, bucket_mb)


def make(rule="sgd", **options):
    torch.manual_seed(0)
    model = Net()
    options = {"lr": 0.05, "backend": "cpu", **RULES[rule], **options}
    return model, helpers.RULES[rule].optimizer(param_groups(model, weight_decay=0.1), **options)


def make_pair(rule="sgd", bucket_mb=SMALL, **options):
    """The same model and optimizer twice; the second one is offloaded."""
    pair = [make(rule, **options) for _ in range(2)]
    offloaded(*pair[1], bucket_mb)
    return pair


def train(model, optimizer, steps, scheduler=None, passes=1):
    for t in steps:
        optimizer.zero_grad()
        for k in range(passes):
            loss_of(model, t + 10 * k).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def closure_of(model, optimizer, t):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, t)
        loss.backward()
        return loss

    return closure


def assert_same(pair):
    """Parameters of the models, and what the optimizers hold."""
    (plain, alone), (model, optimizer) = pair
    model.link.compute()
    helpers.assert_same_bits(dict(model.named_parameters()), dict(plain.named_parameters()))
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(alone))


# The bits


@pytest.mark.parametrize("rule", RULES)
def test_training(rule):
    """Two groups and dtypes, tied, frozen, late and unused parameters, a scheduler made before, changes of mode."""
    pair = [make(rule) for _ in range(2)]
    schedulers = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.2, 1.0, 4) for _, optimizer in pair]
    offloaded(*pair[1])
    for steps in (range(3), range(3, 5)):
        for each, scheduler in zip(pair, schedulers):
            train(*each, steps, scheduler)
        assert_same(pair)
        for mode in (False, True):
            for _, optimizer in pair:
                optimizer.train(mode)
            assert_same(pair)
    model, optimizer = pair[1]
    assert float(optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]) == 5
    assert len(optimizer.state) == len(pair[0][1].state)
    assert all(p.grad is None for p in model.parameters())


PERTURBATIONS = [
    *helpers.PERTURBATIONS,
    {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3},
    {"extrapolation": "past_update", "max_grad_norm": 0.5},
]
DTYPES = (torch.float32, torch.bfloat16)
FORMATS = (torch.float32, torch.bfloat16, torch.uint8)
# Two buckets or more, blocks of 16 numbers with shared exponents, and layouts that a copy could lose.
SHAPES = ("scalar", "matrix", "channels_last", "transposed", "columns", "empty", "offset")


def leaves(dtype):
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(64, 66, generator=generator).to(dtype)
    return [*helpers.zoo("cpu", dtype, SHAPES), nn.Parameter(large)]


def backward(params, seed, present):
    """Gradients that are random numbers, the same for equal seeds."""
    pairs = zip(params, present)
    loss = sum((p * helpers.random_like(p, seed + k)).sum().float() for k, (p, there) in enumerate(pairs) if there)
    if any(present):
        loss.backward()


@settings(max_examples=60)
@given(data=st.data())
def test_any_options(data):
    """Drawn: optimizer, options, dtype, formats, size of buckets, passes in a step, parameters without gradient."""
    rule = helpers.RULES[data.draw(st.sampled_from(sorted(helpers.RULES)))]
    variant = rule.variants[data.draw(st.sampled_from(sorted(rule.variants)))]
    perturbation = data.draw(st.sampled_from(PERTURBATIONS))
    if perturbation.get("extrap_norm") and rule is helpers.RULES["sgd"]:
        variant = {**variant, "momentum": 0.9}
    dtype, state_dtype = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(FORMATS))
    bucket_mb = data.draw(st.sampled_from((1e-6, 1e-3, 64)))
    options = {"lr": 0.1, "backend": "cpu", "state_dtype": state_dtype, **variant, **perturbation}
    params = [leaves(dtype) for _ in range(2)]
    optimizers = [rule.optimizer([{"params": ps[:3]}, {"params": ps[3:], "lr": 0.03}], **options) for ps in params]
    link = LateLink()
    offload_over(link, nn.ParameterList(params[1]), optimizers[1], bucket_mb)
    twice = perturbation.get("extrapolation") == "extragradient"
    for t in range(3):
        for half in range(2 if twice else 1):
            present = data.draw(st.lists(st.booleans(), min_size=len(params[0]), max_size=len(params[0])))
            passes = data.draw(st.integers(1, 3))
            for ps, optimizer in zip(params, optimizers):
                link.compute()
                optimizer.zero_grad()
                for k in range(passes):
                    backward(ps, 1000 * t + 100 * half + 10 * k, present)
                optimizer.extrapolate() if half < twice else optimizer.step()
    link.compute()
    helpers.assert_same_bits(params[1], params[0])
    helpers.assert_same_bits(*(helpers.snapshot(optimizer) for optimizer in reversed(optimizers)))


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.1}], ids=helpers.describe)
def test_accumulated_and_dropped_gradients(options):
    """Some parameters get a gradient in one of the passes only. What zero_grad() drops does not count."""
    pair = make_pair("adamw", **options)
    for model, optimizer in pair:
        train(model, optimizer, range(3), passes=3)
        loss_of(model, 7).backward()
        train(model, optimizer, range(2))
    assert_same(pair)


NORMS = [
    {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3, "noise": None},
    {"max_grad_norm": 0.1},
]


@pytest.mark.parametrize("options", NORMS, ids=helpers.describe)
def test_norms_are_those_of_all_gradients(options):
    pair = make_pair(**options)
    for each in pair:
        train(*each, range(3))
    assert_same(pair)
    assert pair[0][1].grad_norm == pair[1][1].grad_norm


def test_gradients_that_no_hook_has_seen():
    """They cross in step(), and zero_grad() drops them."""
    pair = make_pair()
    for model, optimizer in pair:
        train(model, optimizer, [1])
        optimizer.zero_grad()
        model.tied.grad = torch.ones_like(model.tied)
        optimizer.zero_grad()
        model.norm.weight.grad = torch.ones_like(model.norm.weight)
        getattr(model, "link", LateLink()).log.clear()
        optimizer.step()
    assert_same(pair)
    assert len([line for line in pair[1][0].link.log if line.startswith("download")]) == 1


def test_first_step_at_learning_rate_zero():
    """Schedules that warm up begin so; an optimizer without state takes no gradients and lr=0 for a wish for state."""
    pair = make_pair("adamw", lr=0.0)
    for each in pair:
        train(*each, range(1))
    assert_same(pair)
    assert len(pair[1][1].state) > 0


def test_closures():
    pair = make_pair()
    for t in range(3):
        losses = [optimizer.step(closure_of(model, optimizer, t)) for model, optimizer in pair]
        assert torch.equal(*losses)
    assert_same(pair)


EXTRAGRADIENT = {"extrapolation": "extragradient", "noise": None}


def test_extragradient_with_a_closure():
    pair = make_pair(**EXTRAGRADIENT)
    for model, optimizer in pair:
        for t in range(3):
            optimizer.step(closure_of(model, optimizer, t))
    assert_same(pair)


def test_extragradient_by_hand_and_cancelled():
    """In the second batch `late` gets a gradient in the first half only; the third one is skipped."""
    pair = make_pair(**EXTRAGRADIENT)
    for model, optimizer in pair:
        for first, second in ((1, 3), (1, 2), (1, None)):
            optimizer.zero_grad()
            loss_of(model, first).backward()
            optimizer.extrapolate()
            optimizer.zero_grad()
            if second is None:
                optimizer.cancel_extrapolation()
                continue
            loss_of(model, second).backward()
            optimizer.step()
    assert_same(pair)


# Saving, loading, changing


@pytest.mark.parametrize("evaluated", [False, True])
def test_state_dicts_go_to_runs_without_offload_and_back(evaluated):
    pair = make_pair("adamw")
    for model, optimizer in pair:
        train(model, optimizer, range(3))
        optimizer.train(not evaluated)
    pair[1][0].link.compute()
    saved = [copy.deepcopy((model.state_dict(), optimizer.state_dict())) for model, optimizer in pair]
    helpers.assert_same_bits(saved[1], saved[0])
    others = [*make_pair("adamw"), make("adamw", state_dtype=torch.float32)]
    offloaded(*others[2])
    loss_of(others[1][0], 7).backward()
    others[1][1].zero_grad()
    for (model, optimizer), state_dict in zip(others, (saved[1], saved[0], saved[0])):
        for part, loaded in ((model, state_dict[0]), (optimizer, state_dict[1])):
            part.load_state_dict(loaded)
    for model, optimizer in (pair[0], *others):
        optimizer.train()
        train(model, optimizer, range(3, 5))
    assert_same([pair[0], others[1]])
    assert_same([pair[0], others[2]])
    helpers.assert_same_bits(helpers.snapshot(others[0][1]), helpers.snapshot(pair[0][1]))


def test_offload_in_mid_run():
    """The state moves, and keeps its bits; an optimizer in eval mode goes on from there."""
    pair = [make("lamb") for _ in range(2)]
    for model, optimizer in pair:
        train(model, optimizer, range(2))
        optimizer.eval()
    offloaded(*pair[1])
    assert_same(pair)
    for model, optimizer in pair:
        optimizer.train()
        train(model, optimizer, range(2))
    assert_same(pair)


@pytest.mark.parametrize("options", [{}, {"extrapolation": None, "noise": None}], ids=helpers.describe)
def test_changes_by_hand_count(options):
    pair = make_pair(**options)
    for model, optimizer in pair:
        train(model, optimizer, range(2))
        with optimizer.base_parameters(), torch.no_grad():
            getattr(model, "link", LateLink()).compute()
            for p in model.parameters():
                p.clamp_(-0.1, 0.1)
        train(model, optimizer, range(2))
        if options:
            with torch.no_grad():
                getattr(model, "link", LateLink()).compute()
                model.tied.mul_(0.5)
            train(model, optimizer, range(1))
    assert_same(pair)


@pytest.mark.parametrize("options", [{}, {"extrapolation": None, "noise": None}], ids=helpers.describe)
def test_base_of_knows_parameters_of_the_model(options):
    pair = make_pair(**options)
    for model, optimizer in pair:
        train(model, optimizer, range(2))
        getattr(model, "link", LateLink()).compute()
        with torch.no_grad():
            if options:
                model.narrow.weight.copy_(torch.full_like(model.narrow.weight, 0.25))
                assert optimizer.base_of(model.narrow.weight).eq(0.25).all()
            for p in (model.tied, model.narrow.weight, model.never.weight):
                optimizer.base_of(p).mul_(0.5)
        train(model, optimizer, range(2))
    assert_same(pair)
    for p, q in zip(pair[0][0].parameters(), pair[1][0].parameters()):
        helpers.assert_same_bits(pair[1][1].base_of(q), pair[0][1].base_of(p))


def test_writing_in_train_mode_is_noticed_and_steps_are_not_taken_for_it(recwarn):
    model, optimizer = make_pair("adamw")[1]
    train(model, optimizer, range(40))
    assert not recwarn
    with pytest.warns(UserWarning, match="was changed between steps"):
        for t in range(20):
            model.link.compute()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.01)
            train(model, optimizer, [t])


def test_parameters_that_are_added_or_thawed():
    pair = [make() for _ in range(2)]
    for model, _ in pair:
        model.blocks[1].requires_grad_(False)
    offloaded(*pair[1])
    for model, optimizer in pair:
        train(model, optimizer, [1])
        model.blocks[1].requires_grad_(True)
        train(model, optimizer, [1])
    loss_of(pair[1][0], 1).backward()
    assert all(p.grad is None for p in pair[1][0].parameters()), "those that are thawed are taken in backward now"
    for model, optimizer in pair:
        optimizer.add_param_group({"params": list(model.frozen.requires_grad_(True).parameters()), "lr": 0.01})
        train(model, optimizer, [1, 3])
    assert_same(pair)
    model, optimizer = pair[1]
    loss_of(model, 1).backward()
    assert all(p.grad is None for p in model.parameters()), "those that are added, too"
    assert len(optimizer._offload._pairs) == sum(len(bucket.params) for bucket in optimizer._offload._buckets)
    with pytest.raises(ValueError, match="shares memory with a parameter before it, or is listed twice"):
        optimizer.add_param_group({"params": [model.tied]})
    optimizer.zero_grad()
    for each in pair:
        train(*each, [2])
    assert_same(pair)


# The copies


def test_order_of_copies():
    """The host waits for a bucket of gradients at a time, and steps while the bucket before travels back."""
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    optimizer = offloaded(model, ExtrapSGD(model.parameters(), lr=0.1, backend="cpu"), bucket_mb=1e-6)
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()  # the first one waits for all gradients, to know whether it shall create the state only
    model.link.compute()
    model.link.log.clear()
    early = optimizer.step_early

    def step_early(number, positions):
        model.link.log.append(f"step {positions}")
        early(number, positions)

    optimizer.step_early = step_early
    model(torch.ones(1, 8)).sum().backward()
    assert model.link.log == ["download 7", "download 8", "download 9"], "backward waits for nothing"
    model.link.log.clear()
    optimizer.step()
    assert model.link.log == [
        "host waits for upload 6",  # of the step before
        *("host waits for download 7", "step (2,)", "upload 10"),
        *("host waits for download 8", "step (1,)", "upload 11"),
        *("host waits for download 9", "step (0,)", "upload 12"),
    ]
    model.link.log.clear()
    optimizer.eval()
    assert model.link.log[0] == "host waits for upload 12", "before it writes what is being sent"
    assert model.link.log[1:] == ["upload 13"]


def test_clipping_waits_for_all_gradients():
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(2)))
    optimizer = offloaded(model, ExtrapSGD(model.parameters(), max_grad_norm=1.0, backend="cpu"), bucket_mb=1e-6)
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    assert model.link.log[2:] == ["host waits for download 2", "host waits for download 1", "upload 3"]


def test_link_shows_what_is_read_or_written_too_early():
    link = LateLink()
    source, target = torch.ones(3), torch.zeros(3)
    copied = link.download(source, target)
    assert target.isnan().all()
    copied.synchronize()
    assert torch.equal(target, source)
    link.upload([(source, target)])
    source.zero_()
    with pytest.raises(AssertionError, match="written before upload 2 was done"):
        link.compute()


def test_gradients_are_freed_in_backward_and_memory_is_allocated_once():
    model, optimizer = make_pair("adamw")[1]
    allocated = []
    allocate = model.link.host_memory
    model.link.host_memory = lambda like: allocated.append(like) or allocate(like)
    for passes, expected in ((1, True), (1, False), (3, True), (2, False)):
        allocated.clear()
        optimizer.zero_grad()
        for _ in range(passes):
            loss_of(model, 1).backward()
            assert all(p.grad is None for p in model.parameters())
        optimizer.step()
        assert bool(allocated) == expected


# What is refused, and what is forgotten


def test_refused_steps_change_nothing():
    """What is wrong with the last bucket is found before the first one is stepped; then the step can be taken."""
    pair = make_pair()
    for model, optimizer in pair:
        train(model, optimizer, [1])
        optimizer.zero_grad()
        loss_of(model, 2).backward()
    model, optimizer = pair[1]
    model.link.compute()
    before = copy.deepcopy(model.state_dict()), helpers.snapshot(optimizer)
    group = optimizer.param_groups[0]
    for name, bad in (("momentum", "much"), ("noise", "pink"), ("state_dtype", torch.float64)):
        good, group[name] = group[name], bad
        with pytest.raises(ValueError, match=f"Invalid {name} value"):
            optimizer.step()
        group[name] = good
        helpers.assert_same_bits((model.state_dict(), helpers.snapshot(optimizer)), before)
    for _, optimizer in pair:
        optimizer.step()
    assert_same(pair)


def test_sparse_gradients_are_refused():
    model, optimizer = make_pair()[1]
    train(model, optimizer, [1])
    model.link.compute()
    before = copy.deepcopy(model.state_dict()), helpers.snapshot(optimizer)
    loss_of(model, 2).backward()
    optimizer.zero_grad()
    model.blocks[3].weight.grad = torch.ones(24, 24)
    model.tied.grad = torch.ones(24, 17).to_sparse()
    with pytest.raises(RuntimeError, match=r"gradient of parameter 0 of group 0.*sparse"):
        optimizer.step()
    helpers.assert_same_bits((model.state_dict(), helpers.snapshot(optimizer)), before)


def test_grad_scaler_is_refused():
    model, optimizer = make_pair()[1]
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, 1)).backward()
    with pytest.raises(RuntimeError, match="a GradScaler looks for infinite gradients before step"):
        scaler.step(optimizer)
    optimizer.found_inf = torch.zeros(())
    with pytest.raises(RuntimeError, match="a GradScaler looks"):
        optimizer.step()


def test_local_gradients_are_refused():
    model, optimizer = make_pair()[1]
    loss_of(model, 1).backward()
    optimizer.local_gradients[model.tied] = torch.ones_like(model.tied)
    with pytest.raises(RuntimeError, match="optimizer.local_gradients are on the accelerator"):
        optimizer.step()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(copied):
    with pytest.raises(RuntimeError, match=r"cannot be copied or pickled.*save state_dict"):
        copied(make_pair()[1][1])


def refusals():
    linear = nn.Linear(2, 2)
    yield "bucket_mb", ValueError, linear, ExtrapSGD(linear.parameters()), {"bucket_mb": 0}
    yield "shares memory", ValueError, linear, ExtrapSGD([linear.weight, nn.Parameter(linear.weight.detach()[1:])]), {}
    lazy = nn.LazyLinear(2)
    yield "lazy, sparse or nested", RuntimeError, lazy, ExtrapSGD(lazy.parameters()), {}
    flat = nn.Linear(2, 2)
    flat.weight._fsdp_flattened = True
    yield "made by FSDP1", RuntimeError, flat, ExtrapSGD(flat.parameters()), {}
    on_gpu = ExtrapSGD(linear.parameters())
    on_gpu.backend = "triton"
    yield "backend 'triton'", RuntimeError, linear, on_gpu, {}
    released = ExtrapSGD(linear.parameters())
    release_gradients(linear, released)
    yield "not released", RuntimeError, linear, released, {}


@pytest.mark.parametrize("case", list(refusals()), ids=lambda case: case[0])
def test_refusals(case):
    message, error, model, optimizer, options = case
    before = list(optimizer.param_groups[0]["params"])
    with pytest.raises(error, match=message):
        offload_over(LateLink(), model, optimizer, **options)
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], before, strict=True))


def test_offload_is_for_parameters_on_one_cuda_device():
    linear = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="the optimizer has parameters on the host only; offload.* one CUDA device"):
        offload(linear, ExtrapSGD(linear.parameters()))
    with pytest.raises(ValueError, match=re.escape("on ['meta']; offload()")):
        offload(linear, ExtrapSGD(nn.Linear(2, 2, device="meta").parameters()))
    with pytest.raises(TypeError, match="optimizer is a SGD"):
        offload(linear, torch.optim.SGD(linear.parameters()))


def test_offloaded_once_and_not_released():
    model, optimizer = make_pair()[1]
    with pytest.raises(RuntimeError, match="not offloaded yet"):
        offload_over(LateLink(), model, optimizer)
    with pytest.raises(RuntimeError, match="released already, by offload"):
        release_gradients(model, optimizer)


def test_forgotten():
    """An optimizer that nobody has is gone at once, and its hooks leave gradients alone."""
    model, optimizer = make_pair("adamw")[1]
    train(model, optimizer, [1])
    gc.disable()
    try:
        del optimizer
        loss_of(model, 1).backward()
        assert model.tied.grad is not None
    finally:
        gc.enable()


def test_messages_call_the_optimizer_by_its_name():
    _, optimizer = make_pair("adamw")[1]
    assert isinstance(optimizer, ExtrapAdamW) and type(optimizer).__name__ == "ExtrapAdamW"
