"""Hugging Face ``Trainer``: the callback that makes all that it saves hold the base iterate."""

from __future__ import annotations

import warnings
from typing import Any, Optional

from extrap_kernels.optimizer import ExtrapOptimizer

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "extrap_kernels.integrations.transformers needs transformers; pip install transformers"
    ) from error


class ExtrapolationCallback(TrainerCallback):  # type: ignore[misc]
    """Puts the base iterate ``x`` into the model whenever ``Trainer`` saves it, and when training ends.

    ``Trainer`` itself calls ``optimizer.eval()`` for evaluation and prediction and ``optimizer.train()`` before each
    forward pass in training, so evaluation needs no callback. It saves the model in whichever mode it is, though: ``x``
    if an evaluation comes right before, the extrapolated point ``y`` if not. Either way training resumes bit for bit::

        Trainer(..., optimizers=(optimizer, scheduler), callbacks=[ExtrapolationCallback()])

    During training the state dict of the model holds ``x`` whoever asks for it, so ``save_model()`` in another callback
    or after an exception saves ``x``, too; asked for between a forward pass and ``optimizer.step()``, it makes that
    step raise.
    """

    def __init__(self) -> None:
        self._hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse or warn of options that do not go with ``Trainer``; have the model switch before it is saved.

        Raises:
            ValueError: ``extrapolation="extragradient"``, which takes two backward passes a step.
        """
        optimizer = _inner(kwargs["optimizer"])
        if optimizer is None:
            return
        _check(optimizer, args.max_grad_norm or 0.0)
        self._remove_hook()
        self._hook = kwargs["model"].register_state_dict_pre_hook(lambda *_: optimizer.eval())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the model as it was given to ``Trainer``, without a hook; it holds the base iterate."""
        self._remove_hook()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Switch to the base iterate if a checkpoint is due after this step."""
        if control.should_save:
            kwargs["optimizer"].eval()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Switch to the base iterate: the next step switches back, the last epoch leaves it in the model.

        This is before ``load_best_model_at_end`` loads weights, which a later switch would overwrite.
        """
        kwargs["optimizer"].eval()

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = None


def _inner(optimizer: Any) -> Optional[ExtrapOptimizer]:
    """Return the optimizer of this package inside Accelerate's and DeepSpeed's wrappers; None if it is another's."""
    while optimizer is not None and not isinstance(optimizer, ExtrapOptimizer):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


def _check(optimizer: ExtrapOptimizer, clipped_by_trainer: float) -> None:
    for number, group in enumerate(optimizer.param_groups):
        if group["extrapolation"] == "extragradient":
            raise ValueError(
                f"Invalid extrapolation value: 'extragradient' in group {number} under Trainer, which takes one "
                "backward pass a step, where extragradient needs two; choose 'past_gradient' or a loop of your own"
            )
    bounds = [group["max_grad_norm"] for group in optimizer.param_groups if group["max_grad_norm"] is not None]
    if bounds and clipped_by_trainer > 0:
        warnings.warn(
            f"gradients are clipped twice: by Trainer to max_grad_norm={clipped_by_trainer}, then by the optimizer to "
            f"max_grad_norm={bounds[0]}, whose grad_norm is that of the clipped gradients; pass "
            "TrainingArguments(max_grad_norm=0) or leave the option of the optimizer out",
            stacklevel=2,
        )
