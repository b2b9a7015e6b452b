"""The examples of README.md and of some pages of docs run, in the order of their page, and train."""

import re
from pathlib import Path

import pytest
import torch
from late_link import PromptLink

import extrap_kernels
from extrap_kernels.offload import offload_over

ROOT = Path(__file__).parents[1]
EXAMPLES = [
    pytest.param(code, id=f"{page}-{i}")
    for page in ("README.md", "docs/optimizers.md", "docs/methods.md", "docs/usage.md")
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


def loss_of(model, batch):
    return model(batch).square().mean()


def test_every_example_is_found():
    assert len(EXAMPLES) == 20


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_trains(tmp_path, monkeypatch, code):
    if "from ignite" in code:
        pytest.importorskip("ignite", reason="pytorch-ignite is in the extra test-ecosystem")
    monkeypatch.setattr(extrap_kernels, "offload", lambda *args, **named: offload_over(PromptLink(), *args, **named))
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    given = {"model": model, "batches": torch.randn(3, 4, 6), "loss_of": loss_of, "logged": []}
    before = model.weight.detach().clone()
    optimizers = {name: getattr(extrap_kernels, name) for name in extrap_kernels.__all__}
    names = {**given, **optimizers, "torch": torch, "device": "cpu", "path": tmp_path / "checkpoint"}
    exec(code, names)
    assert names["model"] is not model or not torch.equal(before, model.weight)
    assert all(p.isfinite().all() for p in names["model"].parameters())
    assert ("logged" in code) == bool(given["logged"])
