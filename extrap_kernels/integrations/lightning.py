"""PyTorch Lightning: the callback that evaluates and saves the base iterate."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from extrap_kernels.optimizer import ExtrapOptimizer

# Two copies of one code base; a Trainer takes the callbacks of its own, so ours is a callback of each that is there.
_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
_packages = [import_module(module) for package, module in _PACKAGES.items() if find_spec(package)]
if not _packages:
    raise ImportError("extrap_kernels.integrations.lightning needs PyTorch Lightning; pip install lightning")


class ExtrapolationCallback(*[package.Callback for package in _packages]):  # type: ignore[misc]
    """Puts the base iterate ``x`` into the model for validation, test, prediction and saving.

    It returns to the extrapolated point at the start of the next training batch, so that training goes on bit for
    bit, also when resumed from a checkpoint. After ``fit`` the model holds ``x``. Optimizers of other packages are left
    alone::

        Trainer(callbacks=[ExtrapolationCallback()])

    The state dict of the module always holds ``x``. If it is taken between the start of a training batch and
    ``optimizer.step()``, that step raises. Lightning calls ``step(closure)``, so extragradient needs nothing more. With
    ``precision="16-mixed"`` Lightning refuses ``gradient_clip_val``, as for torch's fused optimizers.

    ``StochasticWeightAveraging`` averages ``x`` (without batch normalization), ``WeightAveraging`` what the model holds
    between steps, and has to be told::

        class Averaging(EMAWeightAveraging):
            def on_train_batch_end(self, trainer, *args):
                with trainer.optimizers[0].base_parameters():
                    super().on_train_batch_end(trainer, *args)
    """

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make the module switch to the base iterate before its state dict is taken.

        ``on_save_checkpoint`` would come too late for that, and not at all for checkpoints of the weights only.
        """
        self._hook = pl_module.register_state_dict_pre_hook(lambda *_: self.on_validation_start(trainer, pl_module))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Undo :meth:`setup`."""
        self._hook.remove()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse ``StochasticWeightAveraging`` of batch normalization: it ends with a step from its average.

        Optimizers here step from the base iterate in their state, so that the average would be lost.
        """
        for package in _packages:
            swa = package.callbacks.StochasticWeightAveraging
            averages = any(isinstance(callback, swa) for callback in trainer.callbacks)
            if averages and _optimizers(trainer) and swa.pl_module_contains_batch_norm(pl_module):
                raise ValueError(
                    "StochasticWeightAveraging would lose the average of a model with batch normalization under an "
                    "optimizer of extrap_kernels; use WeightAveraging"
                )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Return to the extrapolated point."""
        for optimizer in _optimizers(trainer):
            optimizer.train()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Switch to the base iterate."""
        for optimizer in _optimizers(trainer):
            # Before the first step there is no other point. Lightning's tuner saves then, and trains without callbacks.
            if optimizer.state:
                optimizer.eval()

    # At the end of the epoch, since at the end of training other callbacks put an average into the model.
    on_test_start = on_predict_start = on_train_epoch_end = on_validation_start

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Switch to the base iterate: the model is left as it is after an orderly end."""
        self.on_validation_start(trainer, pl_module)


def _optimizers(trainer: Any) -> list[ExtrapOptimizer]:
    return [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, ExtrapOptimizer)]
