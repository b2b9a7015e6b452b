"""timm's train loop: create_optimizer_v2, its schedulers and scaler, ModelEmaV3, CheckpointSaver, validation at x."""

import pathlib
import re
import runpy
import sys
import types

import helpers
import pytest
import torch

from extrap_kernels.factory import optimizers


class Nothing(type):
    """A class whose attributes are classes like it."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing(name, (), {})


class EmptyModule(types.ModuleType):
    """A module, and a package, that holds a class for each name asked for."""

    __path__ = ()
    __getattr__ = Nothing.__getattr__


def import_timm():
    """Import timm, with an empty torchvision where there is none.

    timm takes its image transforms and data sets from it, which the train loop here does without.
    """
    stand_ins = [f"torchvision{name}" for name in ("", ".datasets", ".models", ".models.feature_extraction", ".ops")]
    stand_ins += [f"torchvision{name}" for name in (".ops.misc", ".transforms", ".transforms.functional")]
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # RuntimeError: it was built for another torch
        sys.modules.update({name: EmptyModule(name) for name in stand_ins})
    else:
        stand_ins = []
    try:
        pytest.importorskip("timm", reason="timm is missing; make setup installs it beside the extra test-ecosystem")
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)


import_timm()
import timm  # noqa: E402
import timm.optim  # noqa: E402
import timm.scheduler  # noqa: E402
import timm.utils  # noqa: E402

from extrap_kernels.integrations import timm as extrap_timm  # noqa: E402

# What makes `--opt extrapsgd` work in a copy of timm's train.py.
extrap_timm.register()
OPTIMIZERS = optimizers()
EPOCHS, UPDATES = 3, 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_registered_by_name(name):
    assert f"extrap{name}" in timm.optim.list_optimizers()
    model = torch.nn.Linear(3, 2)
    optimizer = timm.optim.create_optimizer_v2(
        model, f"extrap{name}", lr=0.25, momentum=0.5, weight_decay=0.125, eps=1e-3, extrap_ratio=0.5
    )
    assert type(optimizer) is OPTIMIZERS[name]
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.125]
    for group in optimizer.param_groups:
        assert group["lr"] == 0.25 and group["extrap_ratio"] == 0.5
        assert group.get("momentum", 0.5) == 0.5 and group.get("eps", 1e-3) == 1e-3


class Run:
    """timm's train.py in short: one epoch is training, validation, EMA validation, saving and a scheduler step."""

    def __init__(self, folder, resume=None):
        torch.manual_seed(0)
        self.model = timm.create_model("resnet10t", num_classes=3)
        self.optimizer = timm.optim.create_optimizer_v2(
            self.model, "extrapsgd", lr=0.01, momentum=0.9, weight_decay=0.05, noise="gaussian"
        )
        self.scheduler = timm.scheduler.CosineLRScheduler(
            self.optimizer, t_initial=EPOCHS * UPDATES, warmup_t=2, t_in_epochs=False
        )
        self.scaler = timm.utils.NativeScaler(device="cpu")
        self.ema = timm.utils.ModelEmaV3(self.model, decay=0.5)
        self.saver = timm.utils.CheckpointSaver(
            self.model,
            self.optimizer,
            model_ema=self.ema,
            amp_scaler=self.scaler,
            checkpoint_dir=folder,
            recovery_dir=folder,
        )
        self.visited = []
        self.start = 0
        if resume:
            checkpoint = torch.load(resume, weights_only=True)
            self.model.load_state_dict(checkpoint["state_dict"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.scaler.load_state_dict(checkpoint["amp_scaler"])
            self.ema.module.load_state_dict(checkpoint["state_dict_ema"])
            self.start = checkpoint["epoch"] + 1

    def train(self):
        for epoch in range(self.start, EPOCHS):
            self.train_one_epoch(epoch)
            with self.optimizer.base_parameters():
                self.validate()
                self.saver.save_checkpoint(epoch, metric=float(epoch))
            self.scheduler.step(epoch + 1)
        return self

    def train_one_epoch(self, epoch):
        self.model.train()
        self.optimizer.train()
        for update in range(epoch * UPDATES, (epoch + 1) * UPDATES):
            images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(update))
            for part in images.chunk(2):  # gradients of two batches an update
                with torch.autocast("cpu", torch.bfloat16):
                    loss = torch.nn.functional.cross_entropy(self.model(part), torch.tensor([0, 1])) / 2
                need_update = part.data_ptr() != images.data_ptr()
                self.scaler(
                    loss,
                    self.optimizer,
                    clip_grad=1.0,
                    parameters=self.model.parameters(),
                    need_update=need_update,
                )
            self.optimizer.zero_grad()
            with self.optimizer.base_parameters():
                self.ema.update(self.model, step=update)
            self.visited.append([self.optimizer.base_of(p).clone() for p in self.model.parameters()])
            self.scheduler.step_update(update + 1)

    def validate(self):
        self.model.eval()
        base = [self.optimizer.base_of(p) for p in self.model.parameters()]
        helpers.assert_same_bits([p.data for p in self.model.parameters()], base)


def test_train_loop(tmp_path):
    run = Run(tmp_path).train()
    optimizer = run.optimizer
    assert type(optimizer) is OPTIMIZERS["sgd"]
    # Two groups, with and without decay, and a warm-up that both follow.
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05]
    assert {int(state["step"]) for state in optimizer.state.values()} == {EPOCHS * UPDATES}

    best = torch.load(tmp_path / "model_best.pth.tar", weights_only=True)
    base = {name: optimizer.base_of(p) for name, p in run.model.named_parameters()}
    helpers.assert_same_bits({name: best["state_dict"][name] for name in base}, base)
    average = run.visited[0]
    for visited in run.visited[1:]:
        average = [(a + b) / 2 for a, b in zip(average, visited)]
    torch.testing.assert_close([p.data for p in run.ema.module.parameters()], average, rtol=1e-5, atol=1e-6)


def test_resumes_bit_for_bit(tmp_path):
    whole = Run(tmp_path).train()
    resumed = Run(tmp_path, resume=tmp_path / "checkpoint-1.pth.tar").train()
    assert resumed.start == 2
    helpers.assert_same_bits(helpers.snapshot(resumed.optimizer), helpers.snapshot(whole.optimizer))
    helpers.assert_same_bits(resumed.ema.module.state_dict(), whole.ema.module.state_dict())


def test_example(capsys):
    example = pathlib.Path(__file__).parents[2] / "examples" / "timm_loop.py"
    runpy.run_path(str(example), run_name="__main__")
    shown = re.search(r"accuracy (\S+), of the average (\S+)", capsys.readouterr().out)
    assert min(float(shown[1]), float(shown[2])) > 0.9
