"""Hugging Face Trainer: evaluates and saves the base iterate, and resumes bit for bit."""

import pathlib
import re
import runpy
import warnings

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD

transformers = pytest.importorskip("transformers", reason="transformers is in the extra test-ecosystem")
pytest.importorskip("accelerate", reason="accelerate is in the extra test-ecosystem")
load_file = pytest.importorskip("safetensors.torch", reason="safetensors comes with transformers").load_file

from extrap_kernels.integrations.transformers import ExtrapolationCallback  # noqa: E402

STEPS = 6


class Recorder(transformers.TrainerCallback):
    """Which point the parameters hold when a gradient is taken and when the model is evaluated."""

    def __init__(self):
        self.written = None
        self.events = []

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.written = [p.detach().clone() for p in model.parameters()]

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.written is not None:
            helpers.assert_same_bits(list(model.parameters()), self.written)
        self.events.append("train")

    def on_prediction_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        helpers.assert_same_bits(list(model.parameters()), bases(model, optimizer))
        assert not torch.equal(next(model.parameters()), self.written[0])
        self.events.append("eval")


def bases(model, optimizer):
    optimizer = getattr(optimizer, "optimizer", optimizer)
    return [optimizer.base_of(p).to(p.dtype) for p in model.parameters()]


def build(folder, callbacks=(), dtype=torch.float32, dropout=0.1, options=None, **arguments):
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "noise": "gaussian", **(options or {})}
    torch.manual_seed(0)
    drop = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, **drop)
    model = transformers.GPT2LMHeadModel(config).to(dtype)
    optimizer = ExtrapSGD(model.parameters(), **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    tokens = torch.randint(32, (16, 8), generator=torch.Generator().manual_seed(1))
    arguments = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        **arguments,
    }
    data = [{"input_ids": row, "labels": row} for row in tokens]
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(**arguments),
        train_dataset=data,
        eval_dataset=data[:4],
        optimizers=(optimizer, scheduler),
        callbacks=list(callbacks),
    )


def optimizer_of(trainer):
    """Trainer wraps the optimizer in Accelerate's."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def saved(folder, step):
    """The model and the optimizer state of a checkpoint."""
    folder = folder / f"checkpoint-{step}"
    return load_file(folder / "model.safetensors"), torch.load(folder / "optimizer.pt", weights_only=True)


def holds_base(folder, step):
    """Whether the checkpoint's embedding, the first parameter, is the base iterate."""
    model, optimizer = saved(folder, step)
    return torch.equal(model["transformer.wte.weight"], optimizer["state"][0]["base"].to(torch.float32))


def test_evaluation_is_at_the_base_iterate_and_training_is_not(tmp_path):
    recorder = Recorder()
    trainer = build(tmp_path, [recorder], eval_strategy="steps", eval_steps=2)
    trainer.train()
    assert recorder.events == ["train", "train", "eval"] * 3
    trainer.predict(trainer.eval_dataset)
    assert recorder.events[-1] == "eval"


def test_evaluation_changes_no_step(tmp_path):
    results = []
    # No dropout: iterating over any DataLoader draws from torch's generator, which dropout uses as well.
    for arguments in ({"eval_strategy": "steps", "eval_steps": 1}, {}):
        trainer = build(tmp_path, dropout=0.0, **arguments)
        trainer.train()
        optimizer_of(trainer).train()
        results.append(helpers.snapshot(optimizer_of(trainer)))
    helpers.assert_same_bits(*results)


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_checkpoints_hold_the_base_iterate(tmp_path, strategy):
    trainer = build(tmp_path, [ExtrapolationCallback()], save_strategy=strategy)
    trainer.train()
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    assert steps == ([3, 6] if strategy == "steps" else [4, 6])
    assert all(holds_base(tmp_path, step) for step in steps)
    trainer.save_model(str(tmp_path / "final"))
    base = bases(trainer.model, optimizer_of(trainer))
    helpers.assert_same_bits(load_file(tmp_path / "final" / "model.safetensors")["transformer.wte.weight"], base[0])


SAVES_Y = "Trainer saves the model while its parameters hold the extrapolated point of ExtrapSGD.*ExtrapolationCallback"


def test_points_whose_base_is_not_stored_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=SAVES_Y):
        build(tmp_path, options={"noise": None, "extrapolation": "momentum"}).train()


def test_trainer_alone_saves_what_it_last_used(tmp_path):
    """Why there is a callback; once this fails, Trainer calls optimizer.eval() before it saves, and it can go."""
    with pytest.warns(UserWarning, match=SAVES_Y) as seen:
        build(tmp_path, eval_strategy="steps", eval_steps=6).train()
    assert len([w for w in seen if "Trainer saves the model" in str(w.message)]) == 1
    assert not holds_base(tmp_path, 3)
    assert holds_base(tmp_path, 6)


@pytest.mark.parametrize(
    "callbacks, options",
    [([ExtrapolationCallback()], {}), ([], {"extrapolation": None, "noise": None})],
    ids=["with the callback", "without extrapolation"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_right_checkpoints_are_not_warned_of(tmp_path, callbacks, options, dtype):
    trainer = build(tmp_path, callbacks, dtype, options=options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Trainer saves the model")
        trainer.train()
        optimizer_of(trainer).train()
        optimizer_of(trainer).state_dict()  # by others it may be asked for in either mode
    assert (tmp_path / "checkpoint-3" / "optimizer.pt").exists()


@pytest.mark.parametrize("with_callback", [True, False])
def test_adapters_of_peft(tmp_path, with_callback):
    """PEFT saves what the state dict of the model has: the base iterate with the callback, else a warning says so."""
    peft = pytest.importorskip("peft", reason="peft is in the extra test-ecosystem")
    trainer = build(tmp_path, [ExtrapolationCallback()] if with_callback else [])
    torch.manual_seed(0)
    model = peft.get_peft_model(trainer.model, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    optimizer = ExtrapSGD(trained.values(), lr=0.1, noise="gaussian")
    trainer = transformers.Trainer(
        model,
        trainer.args,
        train_dataset=trainer.train_dataset,
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)),
        callbacks=[ExtrapolationCallback()] if with_callback else [],
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.train()
    assert any("Trainer saves the model" in str(w.message) for w in seen) == (not with_callback)
    saved_adapter = load_file(tmp_path / f"checkpoint-{STEPS}" / "adapter_model.safetensors")
    assert len(saved_adapter) == len(trained)
    same = [torch.equal(saved_adapter[n.replace(".default", "")], optimizer.base_of(p)) for n, p in trained.items()]
    assert all(same) if with_callback else not any(same)
    optimizer.eval()
    model.save_pretrained(tmp_path / "by hand")
    by_hand = load_file(tmp_path / "by hand" / "adapter_model.safetensors")
    assert all(torch.equal(by_hand[n.replace(".default", "")], optimizer.base_of(p)) for n, p in trained.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("callbacks", [(), (ExtrapolationCallback(),)], ids=["train_mode", "eval_mode"])
def test_resumes_bit_for_bit(tmp_path, callbacks, dtype):
    whole = build(tmp_path, callbacks, dtype)
    whole.train()
    resumed = build(tmp_path / "resumed", callbacks, dtype)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == STEPS
    for trainer in (whole, resumed):
        optimizer_of(trainer).train()
    helpers.assert_same_bits(*(helpers.snapshot(optimizer_of(t)) for t in (resumed, whole)))


def test_best_model_stays_in_place(tmp_path):
    """Evaluating after load_best_model_at_end must not put the last iterate over the best."""
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "n"}
    trainer = build(tmp_path, [ExtrapolationCallback()], **best)
    scores = iter((1.0, 0.0, 0.0))
    trainer.compute_metrics = lambda _: {"n": next(scores)}
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-3")
    expected = saved(tmp_path, 3)[0]["transformer.wte.weight"]
    trainer.evaluate()
    helpers.assert_same_bits(trainer.model.transformer.wte.weight, expected)


class Stop(transformers.TrainerCallback):
    """Saves the model when a step has been taken, and raises."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.saved = {name: value.clone() for name, value in model.state_dict().items()}
        raise ZeroDivisionError


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_whoever_saves_the_model_saves_the_base_iterate(tmp_path, last):
    """Also a callback that comes before ours, and a script that saves after an exception."""
    stop = Stop()
    trainer = build(tmp_path, [stop, ExtrapolationCallback()] if last else [ExtrapolationCallback(), stop])
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    base = bases(trainer.model, optimizer_of(trainer))[0]
    helpers.assert_same_bits(stop.saved["transformer.wte.weight"], base)
    optimizer_of(trainer).train()
    assert not torch.equal(next(trainer.model.parameters()), base)
    trainer.save_model(str(tmp_path / "after"))
    helpers.assert_same_bits(load_file(tmp_path / "after" / "model.safetensors")["transformer.wte.weight"], base)


def test_the_model_keeps_no_hook(tmp_path):
    trainer = build(tmp_path, [ExtrapolationCallback()], max_steps=1)
    trainer.train()
    assert not trainer.model._state_dict_pre_hooks


def test_extragradient_is_refused(tmp_path):
    trainer = build(tmp_path, [ExtrapolationCallback()], options={"extrapolation": "extragradient", "noise": None})
    with pytest.raises(ValueError, match="'extragradient' in group 0 under Trainer.*one backward pass.*past_gradient"):
        trainer.train()


@pytest.mark.parametrize("arguments", [{}, {"max_grad_norm": 0.0}], ids=str)
@pytest.mark.parametrize("clips", [False, True], ids=["not by us", "by us"])
def test_clipping_twice_is_warned_of(tmp_path, clips, arguments):
    options = {"max_grad_norm": 0.5} if clips else {}
    trainer = build(tmp_path, [ExtrapolationCallback()], options=options, max_steps=1, **arguments)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.train()
    twice = [w for w in seen if "clipped twice: by Trainer to max_grad_norm=1.0" in str(w.message)]
    assert len(twice) == int(clips and not arguments)


def test_optimizers_of_others_are_left_alone(tmp_path):
    trainer = build(tmp_path, [ExtrapolationCallback()], max_steps=1)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.train()
    assert trainer.state.global_step == 1


def test_gradient_accumulation(tmp_path):
    recorder = Recorder()
    trainer = build(tmp_path, [recorder], gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=3)
    trainer.train()
    assert recorder.events == ["train"] * 3 + ["eval"] + ["train"] * 3 + ["eval"]


def test_example(capsys):
    example = pathlib.Path(__file__).parents[2] / "examples" / "trainer_transformers.py"
    runpy.run_path(str(example), run_name="__main__")
    shown = re.search(r"loss (\S+)", capsys.readouterr().out)
    assert float(shown[1]) < 0.2
