"""Ignite: handlers of two events have evaluators and checkpoints see the base iterate, as docs/usage.md says."""

import pytest
import torch

from extrap_kernels import ExtrapSGD

pytest.importorskip("ignite", reason="pytorch-ignite is in the extra test-ecosystem")
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import ModelCheckpoint


@pytest.mark.parametrize("switches", [True, False])
def test_evaluation_and_checkpoints_are_at_the_base_iterate(tmp_path, switches):
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 2)
    data = [(row, row[:, :2]) for row in torch.randn(3, 4, 6)]
    optimizer = ExtrapSGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
    if switches:
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: optimizer.train())
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: optimizer.eval())
    at_base = []
    evaluator = Engine(lambda *_: at_base.append(torch.equal(model.weight, optimizer.base_of(model.weight))))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(data))
    checkpoint = ModelCheckpoint(tmp_path, "", n_saved=None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint, {"model": model})
    trainer.run(data, max_epochs=2)
    assert at_base == [switches] * 6
    saved = torch.load(tmp_path / "model_6.pt", weights_only=True)
    assert torch.equal(saved["weight"], optimizer.base_of(model.weight)) == switches
