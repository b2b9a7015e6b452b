"""Hugging Face Accelerate: its wrapper of the optimizer, gradient accumulation, checkpoints, GradScaler."""

import pathlib
import re
import runpy

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD

accelerate = pytest.importorskip("accelerate", reason="accelerate is in the extra test-ecosystem")
from accelerate.optimizer import AcceleratedOptimizer  # noqa: E402


def prepare(dtype=torch.float32, optimizer_type=ExtrapSGD, **options):
    """Model, optimizer, loader and scheduler as `prepare` returns them, and the accelerator."""
    accelerator = accelerate.Accelerator(cpu=True, **options)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).to(dtype)
    optimizer = optimizer_type(model.parameters(), lr=0.1, noise="gaussian")
    loader = torch.utils.data.DataLoader(torch.randn(16, 4).to(dtype), batch_size=4)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return (*accelerator.prepare(model, optimizer, loader, scheduler), accelerator)


def epoch(model, optimizer, loader, scheduler, accelerator):
    optimizer.train()
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).square().mean())
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


def bases(model, optimizer):
    return [optimizer.optimizer.base_of(p).to(p.dtype) for p in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_modes_go_through_the_wrapper(dtype):
    prepared = prepare(dtype)
    model, optimizer = prepared[:2]
    assert isinstance(optimizer, AcceleratedOptimizer)
    epoch(*prepared)
    y = [p.detach().clone() for p in model.parameters()]
    optimizer.eval()
    helpers.assert_same_bits([p.data for p in model.parameters()], bases(model, optimizer))
    assert not torch.equal(next(model.parameters()), y[0])
    optimizer.train()
    helpers.assert_same_bits([p.data for p in model.parameters()], y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("rule", helpers.RULES)
def test_resumes_bit_for_bit(tmp_path, rule, mode, dtype):
    optimizer_type = helpers.RULES[rule].optimizer
    whole = prepare(dtype, optimizer_type)
    epoch(*whole)
    getattr(whole[1], mode)()
    whole[-1].save_state(tmp_path)
    if mode == "eval":
        # The saved model, in a model of its own.
        model = prepare(dtype)[0]
        accelerate.load_checkpoint_in_model(model, str(tmp_path))
        helpers.assert_same_bits([p.data for p in model.parameters()], bases(*whole[:2]))
    epoch(*whole)
    resumed = prepare(dtype, optimizer_type)
    resumed[-1].load_state(tmp_path)
    epoch(*resumed)
    helpers.assert_same_bits(helpers.snapshot(resumed[1]), helpers.snapshot(whole[1]))


def test_what_the_wrapper_does_not_pass_on():
    """It has no base_parameters(), extrapolate() or grad_norm: README.md tells to ask the optimizer inside."""
    accelerator = accelerate.Accelerator(cpu=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    options = {"lr": 0.1, "extrapolation": "extragradient", "max_grad_norm": 1.0}
    model, optimizer = accelerator.prepare(model, ExtrapSGD(model.parameters(), **options))
    batch = torch.randn(8, 4)
    x = [p.detach().clone() for p in model.parameters()]
    for move in (optimizer.optimizer.extrapolate, optimizer.step):
        optimizer.zero_grad()
        accelerator.backward(model(batch).square().mean())
        move()
    squares = [p.grad.square().sum() for p in model.parameters()]
    assert optimizer.optimizer.grad_norm == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=1e-6)
    with optimizer.optimizer.base_parameters():
        helpers.assert_same_bits([p.data for p in model.parameters()], bases(model, optimizer))
    assert not torch.equal(model.weight, x[0])
    # If these fail, the wrapper passes more on, and the docs can say so.
    for name in ("base_parameters", "base_of", "extrapolate", "cancel_extrapolation", "grad_norm", "local_gradients"):
        assert not hasattr(optimizer, name)


def test_gradient_accumulation():
    """Four batches, two steps: the optimizer's step is called four times, and acts twice."""
    prepared = prepare(gradient_accumulation_steps=2)
    epoch(*prepared)
    assert {int(state["step"]) for state in prepared[1].state.values()} == {2}


def test_grad_scaler():
    """What mixed_precision="fp16" sets up, which Accelerator itself allows on GPUs only."""
    model, optimizer, loader, *_ = prepare()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    plain, optimizer = optimizer.optimizer, AcceleratedOptimizer(optimizer.optimizer, scaler=scaler)
    batch = next(iter(loader))
    results = []
    for scale in (None, scaler.scale):
        model.load_state_dict({name: torch.full_like(p, 0.1) for name, p in model.state_dict().items()})
        plain.state.clear()
        for _ in range(3):
            loss = model(batch).square().mean()
            (scale(loss) if scale else loss).backward()
            (optimizer if scale else plain).step()
            plain.zero_grad()
        results.append(helpers.snapshot(plain))
    # Powers of two scale without rounding.
    helpers.assert_same_bits(*results)

    before = helpers.snapshot(plain)
    scaler.scale(model(batch).square().mean() * torch.inf).backward()
    optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(plain), before)
    assert scaler.get_scale() == 2.0**7
    # Accelerate takes a step that is called for one that is taken, as with torch's fused optimizers: README.md.
    assert not optimizer.step_was_skipped


def test_example(capsys):
    example = pathlib.Path(__file__).parents[2] / "examples" / "accelerate_loop.py"
    runpy.run_path(str(example), run_name="__main__")
    shown = re.search(r"loss (\S+)", capsys.readouterr().out)
    assert float(shown[1]) < 0.02
