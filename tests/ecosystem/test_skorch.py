"""skorch: validates and saves the base iterate, and trains as without the callback."""

import helpers
import numpy as np
import pytest
import torch

from extrap_kernels import ExtrapSGD

skorch = pytest.importorskip("skorch", reason="skorch is in the extra test-ecosystem")
from skorch.callbacks import Callback, Checkpoint  # noqa: E402

from extrap_kernels.integrations.skorch import ExtrapolationCallback  # noqa: E402

INPUTS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
TARGETS = INPUTS[:, :2].copy()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))

    def forward(self, inputs):
        return self.layers(inputs)


def net_of(*callbacks, optimizer=ExtrapSGD, options=None, **more):
    torch.manual_seed(0)
    options = {"momentum": 0.9, "noise": "gaussian", "noise_std": 0.05} if options is None else options
    options = {f"optimizer__{name}": value for name, value in options.items()}
    more = {"max_epochs": 2, "batch_size": 8, "lr": 0.1, "verbose": 0, **more}
    return skorch.NeuralNetRegressor(Model, optimizer=optimizer, callbacks=list(callbacks), **options, **more)


def params(net):
    return [p.detach().clone() for p in net.module_.parameters()]


def bases(net):
    return [net.optimizer_.base_of(p).detach().clone() for p in net.module_.parameters()]


class Bases(Callback):
    """The base iterate after each epoch."""

    def on_epoch_end(self, net, **kwargs):
        self.bases = bases(net)


class Recorder(Callback):
    """Which point the module holds when a batch is evaluated, and where gradients are taken."""

    def initialize(self):
        self.at_base_, self.train_points_ = [], []
        return self

    def on_batch_end(self, net, batch=None, training=None, **kwargs):
        if not training:
            self.at_base_.append(all(map(torch.equal, params(net), bases(net))))

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.train_points_.append(params(net))


def test_validation_needs_the_callback():
    """Why there is a callback: skorch validates inside fit and calls no eval() of the optimizer."""
    found = {}
    for callbacks in ([], [ExtrapolationCallback()]):
        recorder = Recorder()
        net = net_of(*callbacks, recorder).fit(INPUTS, TARGETS)
        assert len(recorder.at_base_) == 2 and len(recorder.train_points_) == 8
        found[bool(callbacks)] = recorder
        assert all(map(torch.equal, params(net), bases(net))) == bool(callbacks)
    assert not any(found[False].at_base_) and all(found[True].at_base_)
    for with_callback, without in zip(found[True].train_points_, found[False].train_points_):
        helpers.assert_same_bits(with_callback, without)


@pytest.mark.parametrize("first", [True, False], ids=["before Checkpoint", "after Checkpoint"])
@pytest.mark.parametrize("validates", [True, False])
def test_checkpoints_hold_the_base_iterate(tmp_path, first, validates):
    keep, ours = Bases(), ExtrapolationCallback()
    checkpoint = Checkpoint(monitor=None, dirname=tmp_path, f_pickle="net.pkl")
    callbacks = [keep, ours, checkpoint] if first else [keep, checkpoint, ours]
    net = net_of(*callbacks, **({} if validates else {"train_split": None})).fit(INPUTS, TARGETS)
    saved = torch.load(tmp_path / "params.pt")
    helpers.assert_same_bits(list(saved.values()), keep.bases)
    assert (tmp_path / "net.pkl").stat().st_size > 0
    assert not net.module_._state_dict_pre_hooks and not net.criterion_._state_dict_pre_hooks


def test_extragradient_and_fitting_again():
    net = net_of(ExtrapolationCallback(), options={"extrapolation": "extragradient"})
    net.fit(INPUTS, TARGETS)
    first = params(net)
    net.partial_fit(INPUTS, TARGETS)
    assert not torch.equal(params(net)[0], first[0])
    helpers.assert_same_bits(params(net), bases(net))


class Stop(Callback):
    def on_batch_end(self, net, batch=None, training=None, **kwargs):
        raise ZeroDivisionError


def test_an_exception_leaves_modules_that_save_the_base_iterate(tmp_path):
    net = net_of(ExtrapolationCallback(), Stop())
    with pytest.raises(ZeroDivisionError):
        net.fit(INPUTS, TARGETS)
    assert not torch.equal(params(net)[0], bases(net)[0])
    net.save_params(f_params=tmp_path / "params.pt")
    helpers.assert_same_bits(list(torch.load(tmp_path / "params.pt").values()), bases(net))
    net.set_params(callbacks=[ExtrapolationCallback()])
    net.fit(INPUTS, TARGETS)
    assert not net.module_._state_dict_pre_hooks


def test_optimizers_of_others_are_left_alone():
    net = net_of(ExtrapolationCallback(), optimizer=torch.optim.SGD, options={}).fit(INPUTS, TARGETS)
    assert len(net.history) == 2
