"""fastai: the callback that evaluates and saves the base iterate."""

from __future__ import annotations

from typing import Any, Optional

from extrap_kernels.optimizer import ExtrapOptimizer

try:
    from fastai.callback.core import Callback
except ImportError as error:
    raise ImportError("extrap_kernels.integrations.fastai needs fastai; pip install fastai") from error


class ExtrapolationCallback(Callback):  # type: ignore[misc]
    """Puts the base iterate ``x`` into the model at the end of each epoch's training, for all that follows.

    So validation, prediction, ``SaveModelCallback`` and what ``fit`` leaves in the model are ``x``; the next training
    batch returns to the extrapolated point, bit for bit. fastai wraps optimizers of torch and does not pass on their
    ``train()`` and ``eval()``. Optimizers of other packages are left alone::

        opt_func = partial(OptimWrapper, opt=ExtrapAdamW)
        Learner(dls, model, opt_func=opt_func, cbs=ExtrapolationCallback())

    During ``fit`` the state dict of the model holds ``x`` whoever asks for it, also ``learn.save()`` after an
    exception; asked for between a forward pass and the step, it makes that step raise. ``learn.export()`` pickles the
    model itself: call ``learn.opt.opt.eval()`` before it if ``fit`` was interrupted. fastai takes one backward pass a
    step, so extragradient needs a loop of your own.
    """

    order = -5  # after TrainEvalCallback, before those that save
    run_valid = False
    _hook: Any = None

    def before_fit(self) -> None:
        """Make the model switch to the base iterate before its state dict is taken."""
        self.after_fit()
        self._hook = self.learn.model.register_state_dict_pre_hook(lambda *_: self._eval())

    def before_batch(self) -> None:
        """Return to the extrapolated point; fastai calls this for batches of training only, as ``run_valid`` says."""
        optimizer = _inner(self.learn.opt)
        if optimizer is not None:
            optimizer.train()

    def after_train(self) -> None:
        """Switch to the base iterate."""
        self._eval()

    def before_validate(self) -> None:
        """Switch to the base iterate, also after an epoch that an exception has ended."""
        self._eval()

    def after_fit(self) -> None:
        """Leave the model without a hook."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None

    def _eval(self) -> None:
        optimizer = _inner(self.learn.opt)
        if optimizer is not None:
            optimizer.eval()


def _inner(optimizer: Any) -> Optional[ExtrapOptimizer]:
    """Return the optimizer of this package inside fastai's wrapper; None if it is another's or there is none yet."""
    inner = getattr(optimizer, "opt", None)
    return inner if isinstance(inner, ExtrapOptimizer) else None
