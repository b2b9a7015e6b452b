"""PyTorch Lightning with our callback: evaluates and saves the base iterate, and resumes bit for bit."""

import contextlib
import importlib
import pathlib
import re
import runpy

import helpers
import pytest
import torch
from torch.nn.functional import mse_loss

from extrap_kernels import ExtrapSGD

PACKAGES = {
    name: pytest.importorskip(name, reason="lightning is in the extra test-ecosystem")
    for name in ("lightning.pytorch", "pytorch_lightning")
}
from extrap_kernels.integrations.lightning import ExtrapolationCallback  # noqa: E402

# Lightning's advice on data loading, and its use of deprecated parts of torch.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

BATCHES = 4


@pytest.fixture(params=PACKAGES)
def pl(request):
    return PACKAGES[request.param]


def module(pl):
    """A module that notes what its parameters hold in training and evaluation."""

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
            self.events = []

        def loss(self, batch):
            x, y = batch
            return mse_loss(self.net(x), y)

        def training_step(self, batch, batch_idx):
            self.note("train")
            return self.loss(batch)

        def validation_step(self, batch, batch_idx):
            self.note("validate")
            self.log("val_loss", self.loss(batch))

        def test_step(self, batch, batch_idx):
            self.note("test")

        def predict_step(self, batch, batch_idx):
            self.note("predict")
            return self.loss(batch)

        def note(self, stage):
            held = [p.detach().clone() for p in self.parameters()]
            optimizers = self.trainer.optimizers
            base = rounded_base(self) if optimizers and optimizers[0].state else None
            self.events.append((stage, held, base))

        def configure_optimizers(self):
            optimizer = ExtrapSGD(self.parameters(), lr=0.1, momentum=0.9, noise="gaussian")
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    return Module()


def rounded_base(model):
    state = model.trainer.optimizers[0].state
    return [state[p]["base"].to(p.dtype, copy=True) for p in model.parameters()]


def loader():
    """The same batch again and again: resumed in mid-epoch, Lightning starts a plain loader anew."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).repeat(BATCHES, 1)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def trainer(pl, folder, *, epochs=2, checkpoint=None, **options):
    callbacks = [ExtrapolationCallback()]
    if checkpoint:
        # Asked for first: Lightning itself moves it behind the others.
        callbacks.insert(0, pl.callbacks.ModelCheckpoint(dirpath=folder, save_top_k=-1, **checkpoint))
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=checkpoint is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **options,
    )


def load(path):
    checkpoint = torch.load(path, weights_only=True)
    base = [state["base"] for state in checkpoint.get("optimizer_states", [{"state": {}}])[0]["state"].values()]
    return checkpoint, list(checkpoint["state_dict"].values()), base


def test_evaluation_is_at_the_base_iterate_and_training_is_not(pl, tmp_path):
    model, data = module(pl), loader()
    run = trainer(pl, tmp_path, val_check_interval=2)
    run.fit(model, data, data)
    for evaluate in (run.validate, run.test, run.predict):
        run.optimizers[0].train()
        evaluate(model, data)
    # Before the first step, in the sanity check and the first batch, there is no other point than x.
    seen = [event for event in model.events if event[2] is not None]
    for stage, held, base in seen:
        assert torch.equal(held[0], base[0]) == (stage != "train"), stage
    assert {stage for stage, _, _ in seen} == {"train", "validate", "test", "predict"}
    helpers.assert_same_bits(list(model.parameters()), rounded_base(model))


def test_evaluation_changes_no_step(pl, tmp_path):
    results = []
    for interval in (1, 3):
        model, data = module(pl), loader()
        model.net[1].p = 0.0  # iterating over any DataLoader draws from torch's generator, which dropout uses as well
        run = trainer(pl, tmp_path, val_check_interval=interval, num_sanity_val_steps=0)
        run.fit(model, data, data)
        run.optimizers[0].train()
        results.append(helpers.snapshot(run.optimizers[0]))
    helpers.assert_same_bits(*results)


@pytest.mark.parametrize("when", [{"every_n_train_steps": 3}, {"every_n_epochs": 1}, {"monitor": "val_loss"}], ids=str)
def test_checkpoints_hold_the_base_iterate(pl, tmp_path, when):
    data = loader()
    trainer(pl, tmp_path, checkpoint=when).fit(module(pl), data, data if "monitor" in when else None)
    paths = list(tmp_path.glob("*.ckpt"))
    assert len(paths) == 2
    for path in paths:
        checkpoint, weights, base = load(path)
        assert not checkpoint["optimizer_states"][0]["param_groups"][0]["train_mode"]
        helpers.assert_same_bits(weights, base)


def test_checkpoints_of_weights_alone_hold_the_base_iterate(pl, tmp_path):
    full, weights = tmp_path / "full", tmp_path / "weights"
    for folder in (full, weights):
        checkpoint = {"every_n_train_steps": 3, "save_weights_only": folder == weights}
        trainer(pl, folder, checkpoint=checkpoint).fit(module(pl), loader())
    for path in full.glob("*.ckpt"):
        helpers.assert_same_bits(load(weights / path.name)[1], load(path)[2])


def test_saving_by_hand(pl, tmp_path):
    model, run = module(pl), trainer(pl, tmp_path)
    run.fit(model, loader())
    run.save_checkpoint(tmp_path / "by-hand.ckpt")
    _, weights, base = load(tmp_path / "by-hand.ckpt")
    helpers.assert_same_bits(weights, base)
    assert not model._state_dict_pre_hooks


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
@pytest.mark.parametrize("step", [3, 4])
def test_resumes_bit_for_bit(pl, tmp_path, precision, step):
    checkpoint = {"every_n_train_steps": step, "filename": "{step}"}
    results = []
    for path in (None, tmp_path / f"step={step}.ckpt"):
        model = module(pl)
        # The checkpoint holds no state of torch's generators.
        model.net[1].p = 0.0
        run = trainer(pl, tmp_path, precision=precision, checkpoint=checkpoint)
        run.fit(model, loader(), ckpt_path=path)
        assert run.global_step == 2 * BATCHES
        run.optimizers[0].train()
        results.append(helpers.snapshot(run.optimizers[0]))
    helpers.assert_same_bits(*results)


def test_an_interrupted_run_leaves_the_base_iterate(pl, tmp_path):
    model = module(pl)
    model.on_before_zero_grad = lambda _: (_ for _ in ()).throw(ZeroDivisionError) if len(model.events) == 3 else None
    run = trainer(pl, tmp_path)
    with contextlib.suppress(ZeroDivisionError):
        run.fit(model, loader())
    assert len(model.events) == 3
    helpers.assert_same_bits(list(model.parameters()), rounded_base(model))


def test_extragradient_steps(pl, tmp_path):
    """Lightning hands step() a closure, so both gradients of a step come without any change to the module."""
    results = []
    for by_hand in (False, True):
        model = module(pl)
        model.net[1].p = 0.0
        optimizer = ExtrapSGD(model.parameters(), lr=0.1, extrapolation="extragradient")
        model.configure_optimizers = lambda optimizer=optimizer: optimizer
        if by_hand:
            for batch in loader():
                for move in (optimizer.extrapolate, optimizer.step):
                    optimizer.zero_grad()
                    model.loss(batch).backward()
                    move()
        else:
            trainer(pl, tmp_path, epochs=1).fit(model, loader())
        results.append([p.detach().clone() for p in model.parameters()])
    helpers.assert_same_bits(*results)


def by_hand(pl, both):
    """A module of manual optimization, with extragradient steps or the second halves alone."""
    model = module(pl)
    model.net[1].p = 0.0
    model.automatic_optimization = False
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, extrapolation="extragradient", max_grad_norm=0.05)
    model.configure_optimizers = lambda: optimizer

    def training_step(batch, batch_idx):
        wrapped = model.optimizers()
        for move in (wrapped.extrapolate, wrapped.step) if both else (wrapped.step,):
            wrapped.zero_grad()
            model.manual_backward(model.loss(batch))
            move()
        model.norms = (float(wrapped.grad_norm), float(optimizer.grad_norm))

    model.training_step = training_step
    return model, optimizer


def test_extragradient_by_manual_optimization(pl, tmp_path):
    """Lightning's wrapper passes step() a closure that does nothing; two backward passes are two backward passes."""
    model, _ = by_hand(pl, both=True)
    trainer(pl, tmp_path, epochs=1).fit(model, loader())
    twin = module(pl)
    twin.net[1].p = 0.0
    optimizer = ExtrapSGD(twin.parameters(), lr=0.1, extrapolation="extragradient", max_grad_norm=0.05)
    for batch in loader():
        for move in (optimizer.extrapolate, optimizer.step):
            optimizer.zero_grad()
            twin.loss(batch).backward()
            move()
    helpers.assert_same_bits([p.data for p in model.parameters()], [p.data for p in twin.parameters()])
    assert model.norms == (optimizer.grad_norm, optimizer.grad_norm)


def test_half_an_extragradient_step_by_manual_optimization_raises(pl, tmp_path):
    model, _ = by_hand(pl, both=False)
    with pytest.raises(RuntimeError, match="extragradient.*needs extrapolate"):
        trainer(pl, tmp_path, epochs=1).fit(model, loader())


@pytest.mark.parametrize("package", ["lightning", "lightning_fabric"])
def test_fabric_shows_what_the_optimizer_has(package):
    fabric = importlib.import_module(package).Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    inner = ExtrapSGD(model.parameters(), lr=0.1, extrapolation="extragradient", max_grad_norm=1.0)
    model, wrapped = fabric.setup(model, inner)
    batch, seen = torch.randn(8, 4), []
    for _ in range(2):
        for move in (wrapped.extrapolate, wrapped.step):
            wrapped.zero_grad()
            fabric.backward(model(batch).square().mean())
            move()
            seen.append(inner.grad_norm)
            assert wrapped.grad_norm == inner.grad_norm
    assert len(set(seen)) == 4
    with wrapped.base_parameters():
        assert not inner.param_groups[0]["train_mode"]
    assert inner.param_groups[0]["train_mode"]


class Visited:
    """The base iterates at the start and after each step, or epoch, of a module."""

    def __init__(self, model, after):
        self.model, self.points = model, [[p.detach().clone() for p in model.parameters()]]
        setattr(model, after, self.append)

    def append(self, *_):
        self.points.append(rounded_base(self.model))


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_stochastic_weight_averaging(pl, tmp_path, last):
    """The average of the base iterates before each epoch, which nothing overwrites at the end."""
    model = module(pl)
    visited = Visited(model, "on_train_epoch_end")
    run = trainer(pl, tmp_path, epochs=3)
    run.callbacks.insert(0 if last else 1, pl.callbacks.StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1))
    run.fit(model, loader())
    expected = [torch.stack(points).mean(0) for points in zip(*visited.points[:-1])]
    torch.testing.assert_close([p.data for p in model.parameters()], expected, rtol=1e-5, atol=1e-6)
    # It ends by a step from the average where there are batch statistics.
    model.net.append(torch.nn.BatchNorm1d(1))
    with pytest.raises(ValueError, match="use WeightAveraging"):
        run.fit(model, loader())


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_weight_averaging(pl, tmp_path, last):
    class Averaging(pl.callbacks.EMAWeightAveraging):
        def on_train_batch_end(self, trainer, *args):
            with trainer.optimizers[0].base_parameters():
                super().on_train_batch_end(trainer, *args)

    model = module(pl)
    visited = Visited(model, "on_train_batch_end")
    run = trainer(pl, tmp_path)
    run.callbacks.insert(0 if last else 1, Averaging(decay=0.5))
    run.fit(model, loader())
    expected = visited.points[1]
    for point in visited.points[2:]:
        expected = [(a + b) / 2 for a, b in zip(expected, point)]
    torch.testing.assert_close([p.data for p in model.parameters()], expected, rtol=1e-5, atol=1e-6)


def test_learning_rate_finder(pl, tmp_path):
    """It saves a checkpoint, trains with no callback of ours, and goes back."""
    model = module(pl)
    before = [p.detach().clone() for p in model.parameters()]
    run = trainer(pl, tmp_path, epochs=5)
    pl.tuner.Tuner(run).lr_find(model, loader(), num_training=6, update_attr=False)
    helpers.assert_same_bits([p.data for p in model.parameters()], before)
    assert not any(state["step"] for state in run.optimizers[0].state.values())


def test_other_optimizers_are_left_alone(pl, tmp_path):
    model = module(pl)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.1)
    trainer(pl, tmp_path).fit(model, loader(), loader())


def test_missing_lightning_is_named(monkeypatch):
    name = "extrap_kernels.integrations.lightning"
    source = importlib.util.find_spec(name)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install lightning"):
        source.loader.exec_module(importlib.util.module_from_spec(source))


def test_example(capsys):
    example = pathlib.Path(__file__).parents[2] / "examples" / "lightning_callback.py"
    runpy.run_path(str(example), run_name="__main__")
    shown = re.search(r"loss (\S+)", capsys.readouterr().out)
    assert float(shown[1]) < 0.02
