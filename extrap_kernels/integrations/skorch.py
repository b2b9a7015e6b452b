"""skorch: the callback that evaluates and saves the base iterate."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from extrap_kernels.optimizer import ExtrapOptimizer

try:
    from skorch.callbacks import Callback
except ImportError as error:
    raise ImportError("extrap_kernels.integrations.skorch needs skorch; pip install skorch") from error


class ExtrapolationCallback(Callback):  # type: ignore[misc]
    """Puts the base iterate ``x`` into the modules for validation, scoring and saving, and when training ends.

    skorch validates inside ``fit``, where nobody else can call ``eval()``. The next training batch returns to the
    extrapolated point, bit for bit. Optimizers of other packages are left alone::

        NeuralNetClassifier(module, optimizer=ExtrapAdamW, callbacks=[ExtrapolationCallback()])

    During ``fit`` the state dict of a module holds ``x`` whoever asks for it, so ``Checkpoint`` may come before or
    after this callback. skorch calls ``step(closure)``, so ``extrapolation="extragradient"`` needs nothing more.
    """

    def initialize(self) -> ExtrapolationCallback:
        """Start without hooks, as skorch expects it before each ``fit``."""
        self.hooks_: list[Any] = []
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Make the modules switch to the base iterate before their state dict is taken."""
        self._remove_hooks()
        # No reference to the net: skorch pickles modules one by one, and the net with them would be pickled in each.
        switch = functools.partial(_eval, _optimizers(net))
        modules = [value for value in vars(net).values() if isinstance(value, torch.nn.Module)]
        self.hooks_ = [module.register_state_dict_pre_hook(switch) for module in modules]

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Switch to the point that the batch is for."""
        if not training:
            _eval(_optimizers(net))
            return
        for optimizer in _optimizers(net):
            optimizer.train()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Switch to the base iterate, also where there is no validation."""
        _eval(_optimizers(net))

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Leave the base iterate in the modules, and the modules without a hook."""
        _eval(_optimizers(net))
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        for hook in self.hooks_:
            hook.remove()
        self.hooks_ = []


def _optimizers(net: Any) -> list[ExtrapOptimizer]:
    return [value for value in vars(net).values() if isinstance(value, ExtrapOptimizer)]


def _eval(optimizers: Sequence[ExtrapOptimizer], *_: Any) -> None:
    for optimizer in optimizers:
        optimizer.eval()
