"""fastai: validates and saves the base iterate, and trains as without the callback."""

from functools import partial

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdamW, ExtrapSGD

pytest.importorskip("fastai.learner", reason="fastai asks for torchvision and spacy, so no extra has it")
from fastai.callback.core import Callback
from fastai.callback.schedule import fit_one_cycle, lr_find  # noqa: F401
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, load_learner
from fastai.optimizer import OptimWrapper

from extrap_kernels.integrations.fastai import ExtrapolationCallback

OPTIONS = {"momentum": 0.9, "noise": "gaussian", "noise_std": 0.05}


class Data(list):
    """Pairs of inputs and targets, as learn.export() wants them."""

    def new_empty(self):
        return Data()


def learner_of(folder, *callbacks, optimizer=ExtrapSGD, options=OPTIONS, **more):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    inputs = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
    data = Data((row, row[:2].clone()) for row in inputs)
    loaders = DataLoaders(DataLoader(data, bs=4), DataLoader(Data(data[:8]), bs=4), path=folder)
    opt_func = partial(OptimWrapper, opt=optimizer, **options)
    more = {"lr": 0.1, "loss_func": torch.nn.functional.mse_loss, **more}
    return Learner(loaders, model, opt_func=opt_func, path=folder, cbs=list(callbacks), **more)


def params(learner):
    return [p.detach().clone() for p in learner.model.parameters()]


def bases(learner):
    return [learner.opt.opt.base_of(p).detach().clone() for p in learner.model.parameters()]


class Recorder(Callback):
    """Which point the model holds when a batch is evaluated, and the state dict of the model after each epoch."""

    order = 100

    def before_fit(self):
        self.at_base, self.saved, self.train_points = [], [], []

    def after_pred(self):
        if self.learn.training:
            self.train_points.append(params(self.learn))
        else:
            self.at_base.append(all(map(torch.equal, params(self.learn), bases(self.learn))))

    def after_epoch(self):
        self.saved.append((dict(self.learn.model.state_dict()), bases(self.learn)))


def test_validation_needs_the_callback(tmp_path):
    """Why there is a callback: fastai's wrapper has no eval()."""
    found = {}
    for callbacks in ([], [ExtrapolationCallback()]):
        recorder = Recorder()
        learner = learner_of(tmp_path, *callbacks, recorder)
        with learner.no_bar(), learner.no_logging():
            learner.fit(2)
        assert len(recorder.at_base) == 4
        found[bool(callbacks)] = recorder
        assert all(map(torch.equal, params(learner), bases(learner))) == bool(callbacks)
    assert not any(found[False].at_base) and all(found[True].at_base)
    # Training is the same to the bit.
    for with_callback, without in zip(found[True].train_points, found[False].train_points):
        helpers.assert_same_bits(with_callback, without)
    assert len(found[True].train_points) == 12


def test_saved_models_hold_the_base_iterate(tmp_path):
    learner = learner_of(tmp_path, ExtrapolationCallback(), SaveModelCallback(fname="best", every_epoch=1))
    with learner.no_bar(), learner.no_logging():
        learner.fit(2)
    saved = torch.load(tmp_path / "models" / "best_1.pth")
    helpers.assert_same_bits(list(saved.values()), bases(learner))
    assert not learner.model._state_dict_pre_hooks
    inputs = torch.randn(1, 6)
    learner.export("learner.pkl")
    loaded = load_learner(tmp_path / "learner.pkl")
    assert torch.equal(loaded.model(inputs), learner.model(inputs))


class Stop(Callback):
    order = 50

    def after_step(self):
        if self.learn.train_iter == 3:
            raise ZeroDivisionError("stop")


def test_an_exception_leaves_a_model_that_saves_the_base_iterate(tmp_path):
    learner = learner_of(tmp_path, ExtrapolationCallback(), Stop())
    with pytest.raises(ZeroDivisionError), learner.no_bar(), learner.no_logging():
        learner.fit(1)
    assert not any(map(torch.equal, params(learner), bases(learner)))
    saved = torch.load(learner.save("after", with_opt=False))
    helpers.assert_same_bits(list(saved.values()), bases(learner))
    learner.opt.opt.train()
    with learner.no_bar(), learner.no_logging():
        learner.validate()
    helpers.assert_same_bits(params(learner), bases(learner))
    assert not learner.model._state_dict_pre_hooks


def test_resumes_bit_for_bit(tmp_path):
    whole, first, second = (learner_of(tmp_path, ExtrapolationCallback()) for _ in range(3))
    for learner, epochs in ((whole, 2), (first, 1)):
        with learner.no_bar(), learner.no_logging():
            learner.fit(epochs)
    first.save("half")
    second.load("half")
    with second.no_bar(), second.no_logging():
        second.fit(1)
    helpers.assert_same_bits(helpers.snapshot(second.opt.opt), helpers.snapshot(whole.opt.opt))


@pytest.mark.parametrize("optimizer", [ExtrapSGD, ExtrapAdamW], ids=lambda each: each.__name__)
def test_finding_a_rate_and_one_cycle(tmp_path, optimizer):
    options = OPTIONS if optimizer is ExtrapSGD else {}
    learner = learner_of(tmp_path, ExtrapolationCallback(), optimizer=optimizer, options=options, wd=0.01)
    before = params(learner)
    with learner.no_bar(), learner.no_logging():
        learner.lr_find(num_it=10, show_plot=False)
        helpers.assert_same_bits(params(learner), before)
        learner.fit_one_cycle(2, 0.05)
    trained = params(learner)
    assert not torch.equal(trained[0], before[0])
    helpers.assert_same_bits(trained, bases(learner))
    with learner.no_bar(), learner.no_logging():
        learner.lr_find(num_it=10, show_plot=False)
    helpers.assert_same_bits(params(learner), trained)
    helpers.assert_same_bits(bases(learner), trained)


def test_optimizers_of_others_are_left_alone(tmp_path):
    learner = learner_of(tmp_path, ExtrapolationCallback(), optimizer=torch.optim.SGD, options={})
    before = params(learner)
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    assert not torch.equal(params(learner)[0], before[0])
