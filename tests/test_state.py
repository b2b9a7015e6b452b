"""Saving, loading, copying and replacing the state: the run goes on with the same bits, or an error says why not."""

import collections
import copy
import io
import pickle

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD

FULL = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05, "noise": "uniform", "seed": 2**64 - 1}


def make(backend, dtype=torch.float32, params=None, **options):
    params = helpers.zoo(backend, dtype) if params is None else params
    half = len(params) // 2
    groups = [{"params": params[:half]}, {"params": params[half:], "lr": 0.02, "extrapolation": "past_update"}]
    return ExtrapSGD(groups, **{"lr": 0.1, "backend": backend, **FULL, **options})


def through_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def trained(backend, dtype=torch.float32, **options):
    optimizer = make(backend, dtype, **options)
    helpers.train(optimizer, steps=3)
    return optimizer


def copies(optimizer, device=None):
    return [torch.nn.Parameter(p.detach().clone().to(device or p.device)) for p in helpers.parameters_of(optimizer)]


def assert_go_on_alike(first, second):
    """Both take the same further steps in train mode, and end with the same bits."""
    for optimizer in (first, second):
        optimizer.train()
        helpers.train(optimizer, steps=3, seed=50)
    helpers.assert_same_bits(helpers.snapshot(second), helpers.snapshot(first))


@pytest.mark.parametrize("loader", helpers.BACKENDS)
@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("in_eval_mode", [False, True], ids=["train", "eval"])
def test_resume_gives_the_same_bits(backend, loader, dtype, in_eval_mode):
    """Across backends as well; an optimizer of other options takes those of the checkpoint."""
    optimizer = trained(backend, dtype)
    if in_eval_mode:
        optimizer.eval()
    params, state_dict = copies(optimizer, helpers.DEVICES[loader]), through_file(optimizer.state_dict())
    resumed = make(loader, params=params, lr=0.5, momentum=0.0, nesterov=False, noise=None)
    resumed.load_state_dict(state_dict)
    assert_go_on_alike(optimizer, resumed)


def test_low_precision_keeps_its_float32_base(backend):
    optimizer = trained(backend, torch.bfloat16)
    resumed = make(backend, params=copies(optimizer))
    resumed.load_state_dict(optimizer.state_dict())
    bases = [resumed.base_of(p) for p in helpers.parameters_of(resumed)]
    assert all(base.dtype == torch.float32 for base in bases)
    assert any((base != base.bfloat16()).any() for base in bases)


@pytest.mark.parametrize("option", [name for name in make("reference").defaults if name != "train_mode"])
def test_older_dict_without_a_flag_gets_its_default(backend, option):
    """As if an earlier version had saved it, before the option came."""
    plain = ExtrapSGD(helpers.zoo(backend), backend=backend)
    helpers.train(plain, steps=2)
    state_dict = plain.state_dict()
    for group in state_dict["param_groups"]:
        del group[option], group["train_mode"]
    resumed = ExtrapSGD(copies(plain), backend=backend)
    resumed.load_state_dict(through_file(state_dict))
    assert_go_on_alike(plain, resumed)


def lacking(name):
    def spoil(state_dict):
        del state_dict["state"][1][name]

    return spoil


def with_shape_of_another(name):
    def spoil(state_dict):
        state_dict["state"][1][name] = torch.zeros(2, 2, 2)

    return spoil


@pytest.mark.parametrize("version", [None, 1, 2, 0, "1"])
def test_format_version(version):
    optimizer = ExtrapSGD(helpers.zoo("cpu"), lr=0.1)
    state_dict = optimizer.state_dict()
    assert state_dict.pop("format_version") == 1
    if version is not None:
        state_dict["format_version"] = version
    if version in (None, 1):  # None: saved before there were versions
        optimizer.load_state_dict(state_dict)
        return
    with pytest.raises(ValueError, match=f"has format_version {version!r}, and this package reads up to 1: install"):
        optimizer.load_state_dict(state_dict)


def in_eval_mode_without_y(state_dict):
    for group in state_dict["param_groups"]:
        group["train_mode"] = False


def with_too_few_groups(state_dict):
    del state_dict["param_groups"][1]


def with_too_few_params(state_dict):
    del state_dict["param_groups"][1]["params"][-1]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lacking("base"), "lacks 'base' for parameter 1"),
        (lacking("step"), "lacks 'step' for parameter 1"),
        (lacking("momentum_buffer"), "lacks 'momentum_buffer' for parameter 1"),
        (with_shape_of_another("base"), r"'base' of shape \(2, 2, 2\) for parameter 1"),
        (with_shape_of_another("momentum_buffer"), r"'momentum_buffer' of shape \(2, 2, 2\)"),
        (in_eval_mode_without_y, "lacks 'extrapolated' for parameter 0"),
        (with_too_few_groups, "different number of parameter groups"),
        (with_too_few_params, "doesn't match the size"),
    ],
)
def test_unfit_dict_is_refused_and_changes_nothing(backend, spoil, message):
    optimizer = trained(backend)
    before = helpers.snapshot(optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    state_dict = copy.deepcopy(optimizer.state_dict())
    state_dict["param_groups"][0]["lr"] = 123.0
    spoil(state_dict)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state_dict)
    helpers.assert_same_bits((helpers.snapshot(optimizer), optimizer.state_dict()["param_groups"]), before)


def test_dict_of_torch_is_refused(backend):
    params = helpers.zoo(backend)
    plain = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    helpers.set_gradients(params, seed=0)
    plain.step()
    with pytest.raises(ValueError, match=r"must come from ExtrapSGD\.state_dict"):
        ExtrapSGD(params, backend=backend).load_state_dict(plain.state_dict())


def test_loading_leaves_the_dict_alone(backend):
    optimizer = trained(backend)
    state_dict = optimizer.state_dict()
    saved = copy.deepcopy(state_dict)
    resumed = make(backend, params=copies(optimizer))
    resumed.load_state_dict(state_dict)
    helpers.train(resumed, steps=1)
    helpers.assert_same_bits(state_dict, saved)


def test_named_parameters(backend):
    named = [(f"layer.{k}", p) for k, p in enumerate(helpers.zoo(backend))]
    optimizer = ExtrapSGD(named, backend=backend, **FULL)
    helpers.train(optimizer, steps=1)
    resumed = ExtrapSGD([(name, p.detach().clone()) for name, p in named], backend=backend, **FULL)
    resumed.load_state_dict(through_file(optimizer.state_dict()))
    assert resumed.param_groups[0]["param_names"] == [name for name, _ in named]
    assert_go_on_alike(optimizer, resumed)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
@pytest.mark.parametrize("in_eval_mode", [False, True], ids=["train", "eval"])
def test_copies_go_on_alike(backend, duplicate, in_eval_mode):
    # deepcopy and pickle copy the parameters with the optimizer, in row-major order where they have gaps.
    optimizer = make(backend, params=helpers.zoo(backend, names=["matrix", "channels_last", "scalar", "offset"]))
    optimizer.rank = 2
    helpers.train(optimizer, steps=2)
    if in_eval_mode:
        optimizer.eval()
    twin = duplicate(optimizer)
    assert (twin.backend, twin.rank) == (backend, 2)
    assert_go_on_alike(optimizer, twin)


def test_hooks_of_loading_and_saving(backend):
    """The pre-hook's dict is the one that is loaded, and the post-hook sees and may change the final state."""
    optimizer = trained(backend, torch.bfloat16)
    resumed = make(backend, params=copies(optimizer))
    seen = []

    def double_lr(_, state_dict):
        state_dict["param_groups"][0]["lr"] *= 2
        return state_dict

    def after(each):
        seen.extend(state["base"].dtype for state in each.state.values())
        each.state[each.param_groups[0]["params"][2]]["base"].fill_(7.0)

    resumed.register_load_state_dict_pre_hook(double_lr)
    resumed.register_load_state_dict_post_hook(after)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.param_groups[0]["lr"] == 0.2
    assert set(seen) == {torch.float32}
    assert (resumed.state[resumed.param_groups[0]["params"][2]]["base"] == 7.0).all()


def test_added_group_trains_like_one_given_at_once(backend):
    late = ExtrapSGD(helpers.zoo(backend), lr=0.1, backend=backend, **FULL)
    at_once = make(backend, params=[*helpers.zoo(backend), *helpers.zoo(backend, seed=1)])
    helpers.train(late, steps=2)
    late.add_param_group({"params": helpers.zoo(backend, seed=1), "lr": 0.02, "extrapolation": "past_update"})
    for t in range(2):  # the second half has no gradients yet
        helpers.set_gradients(at_once.param_groups[0]["params"], seed=t)
        at_once.step()
    assert_go_on_alike(late, at_once)


def test_group_added_in_eval_mode_is_in_eval_mode(backend):
    optimizer = trained(backend)
    optimizer.eval()
    (param,) = helpers.zoo(backend, names=["matrix"])
    optimizer.add_param_group({"params": [param]})
    assert not optimizer.param_groups[-1]["train_mode"]
    optimizer.train()
    helpers.train(optimizer, steps=1)
    assert (param != optimizer.base_of(param)).any()


def replaced_buffers(optimizer, fresh):
    for p, state in fresh.items():
        for name, value in state.items():
            optimizer.state[p][name] = value


def replaced_entries(optimizer, fresh):
    for p, state in fresh.items():
        optimizer.state[p] = state


def replaced_state(optimizer, fresh):
    optimizer.state = collections.defaultdict(dict, fresh)


def replaced_storage(optimizer, fresh):
    """As by code that moves optimizer state to another device and back."""
    for p, state in fresh.items():
        for name, value in state.items():
            optimizer.state[p][name].data = value


REPLACEMENTS = [replaced_buffers, replaced_entries, replaced_state, replaced_storage]


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_replaced_state_is_used(backend, replace):
    optimizer, twin = trained(backend), trained(backend)
    fresh = {
        p: {name: 0.5 * v if name != "step" else v + 4 for name, v in s.items()} for p, s in optimizer.state.items()
    }
    # Held, so that a stale pointer fails the comparison below and not the process.
    kept = [value.detach() for state in optimizer.state.values() for value in state.values()]
    replace(optimizer, fresh)
    for p, q in zip(helpers.parameters_of(optimizer), helpers.parameters_of(twin)):
        for name, value in twin.state[q].items():
            value.copy_(fresh[p][name])
    assert_go_on_alike(optimizer, twin)
    del kept
    assert all(optimizer.base_of(p).data_ptr() == state["base"].data_ptr() for p, state in fresh.items())


def test_replaced_buffer_may_have_other_strides(backend):
    optimizer, twin = trained(backend), trained(backend)
    for p, q in zip(helpers.parameters_of(optimizer), helpers.parameters_of(twin)):
        optimizer.state[p]["momentum_buffer"] = torch.zeros(p.shape, device=p.device)
        twin.state[q]["momentum_buffer"].zero_()
    assert_go_on_alike(optimizer, twin)


@pytest.mark.parametrize("in_eval_mode", [False, True], ids=["train", "eval"])
def test_cleared_state_starts_anew(backend, in_eval_mode):
    """From what the parameters hold, weights that were loaded for example."""
    optimizer = trained(backend)
    optimizer.train(not in_eval_mode)
    with torch.no_grad():
        for p in helpers.parameters_of(optimizer):
            p.mul_(2)
    optimizer.state.clear()
    fresh = make(backend, params=copies(optimizer))
    assert_go_on_alike(optimizer, fresh)
