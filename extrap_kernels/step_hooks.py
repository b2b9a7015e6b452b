"""What others do around ``step()``: hooks, profilers, methods of subclasses."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

import torch
from torch.optim import optimizer as torch_optimizer


def skip_idle(plain: Callable[..., Any], hooked: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``step()`` that calls ``hooked`` where a hook or a profiler is there, else ``plain``.

    The wrapper opens a range for the profiler in every step, which takes as long as stepping 100 small tensors.

    Args:
        plain: ``step()`` of an optimizer class.
        hooked: the same as ``Optimizer.profile_hook_step`` wraps it.
    """

    # Traced, a step would be a graph of its own for every optimizer and every state of its plans; as a call it costs
    # nothing more.
    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    @functools.wraps(hooked)
    def step(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        busy = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        )
        return (hooked if busy else plain)(self, *args, **kwargs)

    return step


def sees_gradients(optimizer: torch.optim.Optimizer, step: Callable[..., Any]) -> bool:
    """Whether code of others runs before ``step``, the one of this package: a hook, or the ``step()`` of a subclass."""
    hooked = optimizer._optimizer_step_pre_hooks or torch_optimizer._global_optimizer_pre_hooks
    return bool(hooked) or inspect.unwrap(type(optimizer).step) is not inspect.unwrap(step)
