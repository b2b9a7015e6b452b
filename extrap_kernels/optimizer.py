"""The base class of all optimizers: what torch calls, and the protocol of a step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels import backends, checkpointing, direction_norm, flat, modes, options, step_hooks
from extrap_kernels.launch import Phase
from extrap_kernels.layout import is_plain, overlaps
from extrap_kernels.state import recovery
from extrap_kernels.state.float24 import write_base
from extrap_kernels.state.layout import StateLayout
from extrap_kernels.state.owners import BaseOwners
from extrap_kernels.stepping import Stepper

Closure = Callable[[], Union[float, Tensor]]


class ExtrapOptimizer(torch.optim.Optimizer):
    """Base class; a subclass names its rule and adds its own options.

    Between steps the parameters hold the extrapolated point ``y``: to change a parameter by hand, call
    :meth:`set_base`. State tensors may be changed in place, exchanged or moved: every step reads them anew.

    Attributes:
        rule: module of :mod:`extrap_kernels.reference.rules`, whose ``SPEC`` says what the rule consists of.
        backend: ``"auto"`` or the backend asked for; see :func:`extrap_kernels.backends.resolve`.
        rank: number added to the seed of the noise. None (default) means the rank in the default process group of
            ``torch.distributed``, and 0 if there is no such group or any parameter is a DTensor, because the workers
            then share one extrapolated point. It is not saved in state dicts.
        local_gradients: this worker's own gradient of each parameter whose ``p.grad`` is an average over workers. It
            has the shape of the parameter and the scale of ``p.grad``. ``step()`` and ``extrapolate()`` consume
            and clear it.
        gradient_norm_group: process group whose members step the other parameters of the same model, or None (default).
            ``max_grad_norm`` then bounds the norm over all of them, and ``extrap_norm`` divides by that over all.
        on_mode_change: called after each change of mode, by engines that step something in place of the parameters;
            None (default) where there is nothing to tell.
    """

    rule: ModuleType
    stepper: Stepper
    __signature__: inspect.Signature

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        own = inspect.signature(cls.__init__)
        without_self = own.replace(parameters=list(own.parameters.values())[1:], return_annotation=own.empty)
        cls.__signature__ = options.shown_in(without_self)

    def __init__(self, params: Any, defaults: dict[str, Any], backend: str = "auto") -> None:
        backends.check_name(backend)
        self.backend = backend
        self.rank: Optional[int] = None
        self.local_gradients: dict[Tensor, Tensor] = {}
        self.gradient_norm_group: Optional[torch.distributed.ProcessGroup] = None
        self.on_mode_change: Optional[Callable[[], None]] = None
        self.stepper = Stepper()
        self.base_owners = BaseOwners()
        super().__init__(params, {**defaults, "train_mode": True})

    def _patch_step_function(self) -> None:
        # torch wraps step() of a class when the first of its instances is made.
        plain = type(self).step
        super()._patch_step_function()
        if type(self).step is not plain:
            type(self).step = step_hooks.skip_idle(plain, type(self).step)  # type: ignore[method-assign]

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether GradScaler may leave the gradients scaled: nobody but :meth:`step` of this class looks at them.

        This worker's own gradients cannot be unscaled by GradScaler: with them, hooks see what is scaled.
        """
        return bool(self.local_gradients) or not step_hooks.sees_gradients(self, ExtrapOptimizer.step)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for options of ``group`` that cannot be carried out."""
        options.check(group)
        direction_norm.check(self.rule.SPEC, group)
        options.check_learning_rate(group["lr"])
        if not group["weight_decay"] >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
        if group.get("differentiable"):
            raise ValueError("Invalid differentiable value: True; this optimizer writes its state in place")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group, as in ``torch.optim``; options left out get the defaults.

        Raises:
            ValueError: an option is invalid, or elements of a parameter share memory.
        """
        if isinstance(param_group, dict):  # torch refuses everything else
            self.check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        shared = next((p for p in group["params"] if is_plain(p) and overlaps(p)), None)
        if shared is not None:
            del self.param_groups[-1]
            raise ValueError(
                f"a parameter of shape {tuple(shared.shape)} and strides {shared.stride()} has elements that share "
                "memory; pass a contiguous copy"
            )
        group["train_mode"] = self.param_groups[0]["train_mode"]
        self.stepper.reset()

    # The step

    def step(self, closure: Optional[Closure] = None) -> Any:
        """Update the base iterate with the gradients, and move the parameters to the next extrapolated point.

        Args:
            closure: evaluates the model, calls ``backward()`` and returns the loss. With
                ``extrapolation="extragradient"`` it is called twice.

        Returns:
            The loss of the (first) call of ``closure``, or None.

        Raises:
            RuntimeError: in eval mode, for a sparse gradient, or if an extragradient step was not preceded by
                :meth:`extrapolate`. Nothing has been changed then.
            ValueError: an option was set to an invalid value; nothing has changed then.
        """
        try:
            return self._step(closure)
        except BaseException:
            # GradScaler deletes these only after a successful step, and would multiply its next scale by what it finds.
            self.__dict__.pop("grad_scale", None)
            self.__dict__.pop("found_inf", None)
            raise

    def _step(self, closure: Optional[Closure]) -> Any:
        found_inf = getattr(self, "found_inf", None)
        skipped = found_inf is not None and not self._works_on_device() and float(found_inf) != 0.0
        first = not self.state and not skipped and closure is None and not self.stepper.extrapolated
        if first and checkpointing.only_creates_state(self):
            return None
        self._require_train_mode("step()")
        loss = None
        if closure is not None:
            twice = self._extragradient_groups()
            for i in twice:
                options.check_choices(self.param_groups[i])
            before = self._gradients() if twice else []
            with torch.enable_grad():
                loss = closure()
            # One that touches no gradient, as Lightning's manual optimization passes it, evaluates nothing.
            if twice and not _are_same(self._gradients(), before):
                self._take_second_gradient(closure)
        release = self.stepper.in_backward
        if release is not None:
            release.begin_step()
        self._require_extrapolated()
        if skipped:
            self._skip()
        else:
            scale = getattr(self, "grad_scale", None)
            self._run(range(len(self.param_groups)), Phase.UPDATE, scale, found_inf)
            if self.stepper.extrapolated:
                self._return_to_base(only_without_gradient=True)
        self.local_gradients.clear()
        if release is not None:
            release.end_step()
        return loss

    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    def step_early(self, number: int, positions: tuple[int, ...]) -> None:
        """Step the parameters at ``positions`` of group ``number``, in advance of :meth:`step`, which steps the others.

        For :func:`extrap_kernels.release_gradients`: it clears their gradients, so that nobody steps them twice.
        """
        self._run([number], Phase.UPDATE, None, positions=positions)

    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    def extrapolate(self, grad_scale: Union[float, Tensor, None] = None) -> None:
        """Take the first half of an extragradient step: move the parameters along the gradient at the base iterate.

        Call it after the first backward, then clear the gradients, compute them again and call :meth:`step`.

        Args:
            grad_scale: what the loss was multiplied by: ``scaler.get_scale()`` under a GradScaler (default: None, 1).

        Raises:
            RuntimeError: in eval mode, if no group has ``extrapolation="extragradient"``, if called twice before a
                step, or for a sparse gradient. Nothing has been changed then.
            ValueError: an option was set to an invalid value; nothing has changed then.
        """
        self._require_train_mode("extrapolate()")
        groups = self._extragradient_groups()
        if not groups:
            raise RuntimeError("extrapolate() needs a param group with extrapolation='extragradient'")
        if self.stepper.extrapolated:
            raise RuntimeError(
                "extrapolate() was called twice; call step() after the second backward, or cancel_extrapolation() to "
                "give the step up"
            )
        self._run(groups, Phase.EXTRAPOLATE, grad_scale)
        self.stepper.extrapolated.update(groups)
        self.local_gradients.clear()

    def _gradients(self) -> list[tuple[Optional[Tensor], int]]:
        """Return the gradients with their versions, which tell whether anything was written into them."""
        gradients = [param.grad for group in self.param_groups for param in group["params"]]
        return [(grad, 0 if grad is None else grad._version) for grad in gradients]

    def cancel_extrapolation(self) -> None:
        """Give an extragradient step up after :meth:`extrapolate`: put the base iterate back into the parameters.

        For a batch that is skipped between the two backward passes. Nothing happens without an extrapolation.
        """
        self._return_to_base(only_without_gradient=False)

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
        # The norm is not needed: GradScaler found an infinite gradient.
        clipped = any(group["max_grad_norm"] is not None for group in self.param_groups)
        self.stepper.grad_norm = math.inf if clipped else None

    def _require_extrapolated(self) -> None:
        for i, group in enumerate(self.param_groups):
            if group["extrapolation"] == "extragradient" and i not in self.stepper.extrapolated:
                raise RuntimeError(
                    f"step() of param group {i} with extrapolation='extragradient' needs extrapolate() after the first "
                    "backward, or a closure"
                )

    def _extragradient_groups(self) -> list[int]:
        return [i for i, group in enumerate(self.param_groups) if group["extrapolation"] == "extragradient"]

    def _works_on_device(self) -> bool:
        """Whether GradScaler's flag can stay on the device: every parameter is stepped there."""
        if self.stepper.on_device is None:
            devices = {param.device for group in self.param_groups for param in group["params"]}
            return all(backends.resolve(self.backend, device).on_device for device in devices)
        return self.stepper.on_device

    def _run(
        self,
        groups: Sequence[int],
        phase: Phase,
        grad_scale: Union[float, Tensor, None],
        found_inf: Optional[Tensor] = None,
        positions: Optional[tuple[int, ...]] = None,
    ) -> None:
        if not self.stepper.running.acquire(blocking=False):
            raise RuntimeError(
                "step() of this optimizer is running already, in another thread or further up the stack; call it when "
                "that has returned"
            )
        try:
            with torch.no_grad():
                self.stepper.grad_norm = self.stepper.run(self, groups, phase, grad_scale, found_inf, positions)
        except BaseException:
            self.stepper.release()
            raise
        finally:
            self.stepper.running.release()

    @property
    def grad_norm(self) -> Union[float, Tensor, None]:
        """Norm of all gradients, unscaled and before clipping, in the last step.

        A float, or a 0-dim float64 tensor from a backend that works on the device; infinite or NaN if GradScaler
        skipped that step. None while ``max_grad_norm`` is None.
        """
        return self.stepper.grad_norm

    def base_of(self, param: Tensor) -> Tensor:
        """Return the base iterate ``x`` of a parameter; change it by :meth:`set_base`.

        That is ``state[param]["base"]``, in the shape of the parameter and the precision of the arithmetic; or a copy,
        where it is stored in 24 bits, or recovered from the parameter and the momentum (see ``docs/design.md``); or the
        parameter itself, where that holds it: before its first step, in eval mode without a stored base, and without
        extrapolation and noise, unless it has 16 bits.
        """
        state = self.state.get(param, {})
        if self.param_groups[0]["train_mode"] and not self.stepper.extrapolated:
            with torch.no_grad():
                self.base_owners.adopt(param, state)
        return recovery.base_of(param, state, self.rule.SPEC.first_buffer)

    @torch.no_grad()
    def set_base(self, param: Tensor, value: Tensor) -> None:
        """Make ``value``, in the shape of ``param``, its base iterate ``x``; the momentum and the moments stay.

        In train mode the extrapolated point stays where a base is stored, until the next step; elsewhere it moves with
        ``x``. In eval mode the parameter gets the new numbers.

        Raises:
            ValueError: ``value`` has another shape; nothing has changed then.
        """
        if value.shape != param.shape:
            raise ValueError(
                f"Invalid value of shape {tuple(value.shape)} for a parameter of shape {tuple(param.shape)}; pass one "
                "number for each of its elements"
            )
        state = self.state.get(param, {})
        between = any(param is p for i in self.stepper.extrapolated for p in self.param_groups[i]["params"])
        if "base" in state:
            write_base(state, value)
        if recovery.is_recovered(state):
            displaced = state[self.rule.SPEC.first_buffer], state[recovery.INNER_LR]
            param.copy_(recovery.point_from(value.to(param.device, param.dtype), *displaced))
        elif not self.param_groups[0]["train_mode"] or (self.base_owners.holds_base(state) and not between):
            param.copy_(value)

    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    @torch.no_grad()
    def _adopt_changes(self, group: Mapping[str, Any]) -> None:
        """Make what parameters that hold ``x`` were changed to the base iterate."""
        for param in group["params"]:
            self.base_owners.adopt(param, self.state.get(param, {}))

    def prepare_state(self, param: Tensor) -> dict[str, Tensor]:
        """Return the state of ``param``; create what is missing and convert what does not fit."""
        group = next(group for group in self.param_groups if any(param is p for p in group["params"]))
        on_device = backends.resolve(self.backend, param.device).on_device
        layout = StateLayout.of_param(self.rule.SPEC, group, param)
        layout.prepare(self.state[param], param, param.device if on_device else None)
        return self.state[param]

    # Train and eval mode

    def _require_train_mode(self, what: str) -> None:
        if not self.param_groups[0]["train_mode"]:
            raise RuntimeError(
                f"{what} in eval mode: the parameters hold the base iterate; call optimizer.train() before training"
            )

    def _return_to_base(self, *, only_without_gradient: bool) -> None:
        """Undo extrapolate() if no update follows it."""
        for i in self.stepper.extrapolated:
            params = self.param_groups[i]["params"]
            modes.return_to_base(self.state, params, only_without_gradient=only_without_gradient)
        self.stepper.extrapolated.clear()

    def eval(self) -> None:
        """Put the base iterate ``x`` into the parameters, rounded to their dtype, for evaluation and saving.

        The extrapolated point is kept in the state (one copy of the parameters) until :meth:`train`. In eval
        mode this does nothing.
        """
        if self.param_groups[0]["train_mode"]:
            flat.require_connected(self)
            for i, group in enumerate(self.param_groups):
                if options.holds_base(group) and i not in self.stepper.extrapolated:
                    self._adopt_changes(group)
            modes.put_base(self.state, self.rule.SPEC.first_buffer)
            self.stepper.watch.reset()
            self._set_mode(train=False)

    def train(self, mode: bool = True) -> None:
        """Put the extrapolated point ``y`` back into the parameters, bit for bit; ``train(False)`` is :meth:`eval`."""
        if not mode:
            self.eval()
        elif not self.param_groups[0]["train_mode"]:
            flat.warn_of_fsdp1(self)
            modes.put_extrapolated(self.state, self.rule.SPEC.first_buffer)
            self._set_mode(train=True)

    def _set_mode(self, *, train: bool) -> None:
        for group in self.param_groups:
            group["train_mode"] = train
        if self.on_mode_change is not None:
            self.on_mode_change()

    @contextmanager
    def base_parameters(self) -> Iterator[None]:
        """Context manager: the parameters hold the base iterate inside the block, and their former values after it."""
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
        self.__dict__.setdefault("on_mode_change", None)
        self.__dict__.setdefault("stepper", Stepper())
        self.__dict__.setdefault("base_owners", BaseOwners())
        own = set(state.get("defaults", self.__dict__.get("defaults", ())))
        super().__setstate__(state)
        for name in set(self.defaults) - own:
            del self.defaults[name]  # torch adds "differentiable", which not every optimizer here has
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._note_owners()
        self.stepper.reset()

    def _note_owners(self) -> None:
        """Note which points the parameters hold under options that came with the state."""
        for group in self.param_groups:
            for param in group["params"]:
                self.base_owners.note(param, self.state.get(param, {}), holds_base=options.holds_base(group))

    @torch._disable_dynamo  # type: ignore[attr-defined, untyped-decorator, unused-ignore]
    def state_dict(self) -> dict[str, Any]:
        """Return the state as ``torch.optim`` does: a dict of its own, whose tensors are those of the optimizer."""
        checkpointing.complete(self)
        checkpointing.warn_of_trainer(self)
        saved = super().state_dict()
        copied = {key: dict(kept) if isinstance(kept, dict) else kept for key, kept in saved["state"].items()}
        groups = [checkpointing.with_names(group) for group in saved["param_groups"]]
        return {**saved, "state": copied, "param_groups": groups, "format_version": checkpointing.FORMAT_VERSION}

    def float32_state_dict(self) -> dict[str, Any]:
        """Return :meth:`state_dict` with every number in float32, whatever the ``state_dtype``; nothing is lost.

        For tools that read no other format, and to go on without one: it loads into any optimizer of this package with
        the rule's buffers, and into ``torch.optim``, which takes the buffers that it knows by name; load the model as
        :meth:`eval` leaves it then. Exponents of blocks are not in it, and the groups have ``state_dtype="float32"``.
        Set that to another name to have the state in that format again when it is loaded. State of float64 parameters
        stays in float64. What is decoded is new memory, on the device and with the placements of the parameter; all
        else is the optimizer's own, as in :meth:`state_dict`.
        """
        state_dict = self.state_dict()
        checkpointing.to_float32(self, state_dict)
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict from any backend, device and mode; the state keeps its precision.

        Parameters do not change: also load the state dict of the model, saved at the same time. A state dict saved in
        eval mode puts the optimizer into eval mode.

        Raises:
            ValueError: not the state dict of an optimizer, or its groups, options or state are damaged or do not fit;
                nothing has changed then.
        """
        checkpointing.check_form(state_dict)
        loaded: dict[str, Any] = {}

        def check(_: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            final = {**saved, "param_groups": [checkpointing.with_dtypes(group) for group in saved["param_groups"]]}
            checkpointing.check_saved(self, final)
            loaded.update(final)
            return final

        def restore(_: torch.optim.Optimizer) -> None:
            checkpointing.restore(self, loaded)
            self._note_owners()

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


def _are_same(a: list[tuple[Optional[Tensor], int]], b: list[tuple[Optional[Tensor], int]]) -> bool:
    return all([x is y and of_x == of_y for (x, of_x), (y, of_y) in zip(a, b)])
