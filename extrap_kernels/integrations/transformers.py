"""Hugging Face ``Trainer``: the callback that makes every checkpoint hold the base iterate."""

from __future__ import annotations

from typing import Any

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "extrap_kernels.integrations.transformers needs transformers; pip install transformers"
    ) from error


class ExtrapolationCallback(TrainerCallback):  # type: ignore[misc]
    """Puts the base iterate ``x`` into the model before ``Trainer`` saves it and when training ends.

    ``Trainer`` itself calls ``optimizer.eval()`` for evaluation and prediction and ``optimizer.train()`` before each
    forward pass in training, so evaluation needs no callback. But it saves the model in the mode that it is in: ``x``
    right after an evaluation, otherwise ``y``. Training resumes bit for bit either way.

    Put it last among the callbacks, so that it sees their requests to save::

        Trainer(..., optimizers=(optimizer, scheduler), callbacks=[ExtrapolationCallback()])
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Switch to the base iterate if a checkpoint is due after this step."""
        if control.should_save:
            kwargs["optimizer"].eval()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Switch to the base iterate: the next step switches back, the last epoch leaves it in the model.

        This is before ``load_best_model_at_end`` loads weights, which a later switch would overwrite.
        """
        kwargs["optimizer"].eval()
