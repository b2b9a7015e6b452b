"""What every optimizer of the package shares: the step, train and eval mode, and state dicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels import backends, options
from extrap_kernels.backends.scaling import Scaling, clip_coefficient
from extrap_kernels.layout import empty_state, has_state_layout, overlaps
from extrap_kernels.shards import is_dtensor
from extrap_kernels.step_hooks import skip_idle

Closure = Callable[[], Union[float, Tensor]]


class ExtrapOptimizer(torch.optim.Optimizer):
    """Base class: a subclass names its rule and its own options.

    What the parameters hold between steps is the extrapolated point: to change a parameter by hand, change its
    ``state[p]["base"]``. State tensors may be changed in place or exchanged; one that is given another storage by
    ``.data =`` is noticed only if the first parameter's state was given one, too.

    Attributes:
        backend: ``"auto"`` or the backend asked for; see :func:`extrap_kernels.backends.resolve`.
        rank: number added to the seed of the noise; None (default) means the rank in the default process group of
            ``torch.distributed``, or 0 without one, or where any parameter is a DTensor: the workers then share one
            extrapolated point. Not saved in state dicts.
        local_gradients: this worker's own gradient for each parameter where ``p.grad`` holds an average over
            workers. Same shape as the parameter; scaled as ``p.grad`` is. ``step()`` and ``extrapolate()`` consume
            and clear it.
        gradient_norm_group: process group whose members step the other parameters of the same model, or None (default).
            ``max_grad_norm`` bounds the norm over all of them.
        grad_norm: norm of all gradients, unscaled and before clipping, in the last step: a float, or a 0-dim float64
            tensor from a backend that works on the device; infinite, or not a number, if GradScaler skipped that step.
            None while ``max_grad_norm`` is None.
    """

    rule: ModuleType
    rule_name: str
    _step_supports_amp_scaling = True
    _plans: dict[int, backends.GroupPlan]
    _snapshot: Any
    _shares_points: bool
    _extrapolated: set[int]

    def __init__(self, params: Any, defaults: dict[str, Any], backend: str = "auto") -> None:
        backends.check_name(backend)
        self.backend = backend
        self.rank: Optional[int] = None
        self.local_gradients: dict[Tensor, Tensor] = {}
        self.gradient_norm_group: Optional[torch.distributed.ProcessGroup] = None
        self.grad_norm: Union[float, Tensor, None] = None
        self._forget_plans()
        super().__init__(params, {**defaults, "train_mode": True})

    def _patch_step_function(self) -> None:
        # torch wraps step() of a class when the first of its instances is made.
        plain = type(self).step
        super()._patch_step_function()
        if type(self).step is not plain:
            type(self).step = skip_idle(plain, type(self).step)  # type: ignore[method-assign]

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for options of ``group`` that cannot be carried out."""
        options.check(group)
        options.check_learning_rate(group["lr"])
        if not group["weight_decay"] >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
        if group.get("differentiable"):
            raise ValueError("Invalid differentiable value: True; this optimizer writes its state in place")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group, as in ``torch.optim``; options left out get the defaults.

        Raises:
            ValueError: an option that cannot be carried out, or a parameter whose elements share memory.
        """
        if isinstance(param_group, dict):  # torch refuses everything else
            self.check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        shared = next((p for p in group["params"] if overlaps(p)), None)
        if shared is not None:
            del self.param_groups[-1]
            raise ValueError(
                f"a parameter of shape {tuple(shared.shape)} and strides {shared.stride()} has elements that share "
                "memory; pass a contiguous copy"
            )
        group["train_mode"] = self.param_groups[0]["train_mode"]
        self._forget_plans()

    # The step

    def step(self, closure: Optional[Closure] = None) -> Any:
        """Correct the base iterate with the gradients and move the parameters to the next extrapolated point.

        Args:
            closure: evaluates the model, calls ``backward()`` and returns the loss. With
                ``extrapolation="extragradient"`` it is called twice.

        Returns:
            The loss of the (first) call of ``closure``, or None.

        Raises:
            RuntimeError: in eval mode, for a sparse gradient, or for an extragradient step without
                :meth:`extrapolate`; nothing has changed then.
            ValueError: an option that was changed to what is none; nothing has changed then.
        """
        try:
            return self._step(closure)
        except BaseException:
            # GradScaler takes back what it has set only after a step, and multiplies its next scale with what it finds.
            self.__dict__.pop("grad_scale", None)
            self.__dict__.pop("found_inf", None)
            raise

    def _step(self, closure: Optional[Closure]) -> Any:
        found_inf = getattr(self, "found_inf", None)
        skipped = found_inf is not None and not self._works_on_device() and float(found_inf) != 0.0
        first = not self.state and not skipped and closure is None and not self._extrapolated
        if first and self._only_creates_state():
            return None
        self._require_train_mode("step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if self._extragradient_groups():
                self._take_second_gradient(closure)
        self._require_extrapolated()
        if skipped:
            self._skip()
        else:
            scale = getattr(self, "grad_scale", None)
            self._run(range(len(self.param_groups)), correct=True, grad_scale=scale, found_inf=found_inf)
            if self._extrapolated:
                self._return_to_base(only_without_gradient=True)
        self.local_gradients.clear()
        return loss

    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    def extrapolate(self, grad_scale: Union[float, Tensor, None] = None) -> None:
        """First half of an extragradient step: move the parameters along the gradient at the base iterate.

        Call it after the first backward, then clear the gradients, compute them again and call :meth:`step`.

        Args:
            grad_scale: what the loss was multiplied by: ``scaler.get_scale()`` under a GradScaler (default: None, 1).

        Raises:
            RuntimeError: in eval mode, without a group of ``extrapolation="extragradient"``, when called twice
                before a step, or for a sparse gradient; nothing has changed then.
            ValueError: an option that was changed to what is none; nothing has changed then.
        """
        self._require_train_mode("extrapolate()")
        groups = self._extragradient_groups()
        if not groups:
            raise RuntimeError("extrapolate() needs a param group with extrapolation='extragradient'")
        if self._extrapolated:
            raise RuntimeError("extrapolate() was called twice; call step() after the second backward")
        self._run(groups, correct=False, grad_scale=grad_scale)
        self._extrapolated.update(groups)
        self.local_gradients.clear()

    def _take_second_gradient(self, closure: Closure) -> None:
        self.extrapolate()
        try:
            with torch.enable_grad():
                closure()
        except BaseException:
            self._return_to_base(only_without_gradient=False)
            raise

    def _skip(self) -> None:
        self._return_to_base(only_without_gradient=False)
        # Known without a look at the gradients.
        clipped = any(group["max_grad_norm"] is not None for group in self.param_groups)
        self.grad_norm = math.inf if clipped else None

    def _require_extrapolated(self) -> None:
        for i in self._extragradient_groups():
            if i not in self._extrapolated:
                raise RuntimeError(
                    f"step() of param group {i} with extrapolation='extragradient' needs extrapolate() after the first "
                    "backward, or a closure"
                )

    def _extragradient_groups(self) -> list[int]:
        return [i for i, group in enumerate(self.param_groups) if group["extrapolation"] == "extragradient"]

    def _works_on_device(self) -> bool:
        """Whether GradScaler's flag can stay on the device: every parameter is stepped there."""
        devices = {param.device for group in self.param_groups for param in group["params"]}
        return all(backends.works_on_device(self.backend, device) for device in devices)

    def _run(
        self,
        groups: Iterable[int],
        *,
        correct: bool,
        grad_scale: Union[float, Tensor, None],
        found_inf: Optional[Tensor] = None,
    ) -> None:
        with torch.no_grad():
            self._run_without_grad(groups, correct, grad_scale, found_inf)

    def _run_without_grad(
        self,
        groups: Iterable[int],
        correct: bool,
        grad_scale: Union[float, Tensor, None],
        found_inf: Optional[Tensor],
    ) -> None:
        for i in groups:
            options.check_choices(self.param_groups[i])
        if self._snapshot is None or not self._snapshot.matches(self.state, self.param_groups):
            self._plans = {}
        # Every plan is brought up to date before the first of them runs, so that an error changes nothing.
        stale = [i for i in groups if not self._is_fresh(i)]
        if stale:
            self._plan(stale)
        executors = [executor for i in groups for executor in self._plans[i].executors]
        on_device = bool(executors) and all([executor.on_device for executor in executors])
        scale = 1.0 if grad_scale is None else grad_scale if on_device else float(grad_scale)
        norm = self._gradient_norm(groups, executors, scale, on_device)
        work = []
        for i in groups:
            group = self.param_groups[i]
            scaling = Scaling(scale, clip_coefficient(norm, group["max_grad_norm"]), found_inf if on_device else None)
            work += [(executor, group, scaling) for executor in self._plans[i].executors]
        partial_sums: list[backends.PartialSums] = []
        for executor, group, scaling in work:
            if isinstance(executor, backends.ShardedExecutor):
                partial_sums += executor.partial_sums(group, correct=correct, scaling=scaling)
        if partial_sums:
            backends.add_partial_sums(partial_sums)
        for executor, group, scaling in work:
            rank = 0 if group["noise"] is None else self._noise_rank()
            executor.run(group, key=(group["seed"] + rank) % 2**64, correct=correct, scaling=scaling)

    def _gradient_norm(
        self,
        groups: Iterable[int],
        executors: list[backends.Executor],
        scale: Union[float, Tensor],
        on_device: bool,
    ) -> Union[float, Tensor]:
        """Return the norm of the unscaled gradients, also in ``grad_norm``; 0 where no group wants it."""
        self.grad_norm = None
        if all(self.param_groups[i]["max_grad_norm"] is None for i in groups):
            return 0.0
        norm = backends.gradient_square_sum(executors, self.gradient_norm_group).sqrt() / scale
        self.grad_norm = norm if on_device else float(norm)
        return self.grad_norm

    @torch.no_grad()
    def _only_creates_state(self) -> bool:
        """Create all state in a first step of zero gradients at learning rate 0, as checkpoints want it; else False.

        ``torch.distributed.checkpoint.state_dict`` takes such a step, in any mode, to have tensors that it can load
        into. With noise or an ``extrap_lr`` of its own it would move the parameters, which may be loaded already.
        """
        if any(float(group["lr"]) != 0.0 for group in self.param_groups):
            return False
        self._plan(range(len(self.param_groups)))
        executors = [executor for plan in self._plans.values() for executor in plan.executors]
        if float(backends.gradient_square_sum(executors, None)) != 0.0:
            return False
        if not self.param_groups[0]["train_mode"]:
            self._keep_extrapolated()
        return True

    def _plan(self, groups: Iterable[int]) -> None:
        self._shares_points = any(is_dtensor(param) for group in self.param_groups for param in group["params"])
        for i in groups:
            backends.check_gradients(self.param_groups[i]["params"], self.local_gradients)
        for i in groups:
            first = sum(len(group["params"]) for group in self.param_groups[:i])
            self._plans[i] = backends.GroupPlan(self, self.param_groups[i], first)
        self._snapshot = backends.state_snapshot(self.state, self.param_groups)

    def _is_fresh(self, i: int) -> bool:
        plan = self._plans.get(i)
        return (
            plan is not None
            and plan.state_names == self.rule.state_names(self.param_groups[i])
            and plan.refresh(self.local_gradients)
        )

    def state_of(self, param: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the state of ``param``, created where it is missing: ``step``, ``base`` and the named buffers."""
        state: dict[str, Tensor] = self.state[param]
        on_device = backends.works_on_device(self.backend, param.device)
        step_device = param.device if on_device else torch.device("cpu")
        if "base" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=step_device)
            state["base"] = empty_state(param).copy_(param)
        elif state["step"].device != step_device:
            state["step"] = state["step"].to(step_device)
        for name in ("base", *names):
            if name not in state:
                state[name] = torch.zeros_like(state["base"])
            elif not has_state_layout(state[name], param):
                # The parameter was given another memory format or dtype, or the state was exchanged.
                state[name] = empty_state(param).copy_(state[name])
        return state

    def _noise_rank(self) -> int:
        if self.rank is not None:
            return self.rank
        if self._shares_points:
            return 0
        distributed = torch.distributed
        return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0

    def _forget_plans(self) -> None:
        self._plans = {}
        self._snapshot = None
        self._shares_points = False
        self._extrapolated = set()

    # Train and eval mode

    def _require_train_mode(self, what: str) -> None:
        if not self.param_groups[0]["train_mode"]:
            raise RuntimeError(
                f"{what} in eval mode: the parameters hold the base iterate; call optimizer.train() before training"
            )

    @torch.no_grad()
    def _return_to_base(self, *, only_without_gradient: bool) -> None:
        """Undo extrapolate() where no correction follows it."""
        for i in self._extrapolated:
            for param in self.param_groups[i]["params"]:
                if "base" in self.state.get(param, {}) and not (only_without_gradient and param.grad is not None):
                    param.copy_(self.state[param]["base"])
        self._extrapolated.clear()

    @torch.no_grad()
    def eval(self) -> None:
        """Put the base iterate ``x`` into the parameters, rounded to their dtype, for evaluation and saving.

        The extrapolated point is kept in the state (one copy of the parameters) until :meth:`train`. Nothing happens
        in eval mode.
        """
        if not self.param_groups[0]["train_mode"]:
            return
        self._keep_extrapolated()
        self._set_mode(train=False)

    def _keep_extrapolated(self) -> None:
        for param, state in self.state.items():
            if "base" in state:
                state["extrapolated"] = param.clone(memory_format=torch.preserve_format)
                param.copy_(state["base"])

    @torch.no_grad()
    def train(self, mode: bool = True) -> None:
        """Put the extrapolated point ``y`` back into the parameters, bit for bit; ``train(False)`` is :meth:`eval`."""
        if not mode:
            return self.eval()
        if self.param_groups[0]["train_mode"]:
            return None
        for param, state in self.state.items():
            if "extrapolated" in state:
                param.copy_(state.pop("extrapolated"))
        self._set_mode(train=True)
        return None

    def _set_mode(self, *, train: bool) -> None:
        for group in self.param_groups:
            group["train_mode"] = train

    @contextmanager
    def base_parameters(self) -> Iterator[None]:
        """Context manager: the parameters hold the base iterate inside the block, and what they held after it."""
        was_training = self.param_groups[0]["train_mode"]
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    # Saving and loading

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "backend": self.backend, "rank": self.rank}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Also called by load_state_dict(), with nothing but state and param_groups.
        self.__dict__.setdefault("backend", "auto")
        self.__dict__.setdefault("rank", None)
        self.__dict__.setdefault("local_gradients", {})
        self.__dict__.setdefault("gradient_norm_group", None)
        self.__dict__.setdefault("grad_norm", None)
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._forget_plans()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned, from any backend, device and mode; the state keeps its precision.

        The parameters are not touched: load the model's state dict, saved at the same moment, as well. A dict saved
        in eval mode leaves the optimizer in eval mode.

        Raises:
            ValueError: the groups, or the state of a parameter, do not fit; nothing has changed then.
        """
        loaded: dict[str, Any] = {}

        def check(_: torch.optim.Optimizer, final: dict[str, Any]) -> None:
            self._check_saved(final)
            loaded.update(final)

        def restore(_: torch.optim.Optimizer) -> None:
            # torch casts floating-point state to the dtype of the parameter; the saved values undo that.
            for group, saved_group in zip(self.param_groups, loaded["param_groups"]):
                for param, key in zip(group["params"], saved_group["params"]):
                    self._restore(param, loaded["state"].get(key, {}))

        # After the pre-hooks of the user, who may have changed the dict, and before the user's post-hooks.
        handles = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def _restore(self, param: Tensor, saved: Mapping[str, Any]) -> None:
        state = self.state[param] if saved else {}
        for name, value in saved.items():
            if name == "step":
                state[name] = torch.as_tensor(value, dtype=torch.float32).detach().clone().cpu()
            elif name == "extrapolated":
                state[name] = torch.empty_like(param, requires_grad=False).copy_(value)
            elif isinstance(value, Tensor) and value.shape == param.shape:
                state[name] = empty_state(param).copy_(value)

    def _check_saved(self, saved: Mapping[str, Any]) -> None:
        for group, saved_group in zip(self.param_groups, saved["param_groups"]):
            options_after = {**self.defaults, **saved_group}
            needed = ["step", "base", *self.rule.state_names(options_after)]
            if not options_after["train_mode"]:
                needed.append("extrapolated")
            for param, key in zip(group["params"], saved_group["params"]):
                if saved["state"].get(key):
                    self._check_saved_state(param, key, saved["state"][key], needed)

    def _check_saved_state(self, param: Tensor, key: Any, saved: Mapping[str, Any], needed: list[str]) -> None:
        for name in needed:
            if name not in saved:
                raise ValueError(
                    f"loaded state dict lacks {name!r} for parameter {key}; it has {sorted(saved)}. "
                    f"It must come from {type(self).__name__}.state_dict() with the same options"
                )
            if name != "step" and saved[name].shape != param.shape:
                raise ValueError(
                    f"loaded state dict has {name!r} of shape {tuple(saved[name].shape)} for parameter {key} of shape "
                    f"{tuple(param.shape)}; build the model and the optimizer as they were when it was saved"
                )
