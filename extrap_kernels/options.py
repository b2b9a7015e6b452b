"""The extrapolation options that every optimizer of the package shares, and their checks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any, Literal, Optional, TypedDict, Union

import torch
from torch import Tensor

from extrap_kernels.scalars import ON_DEVICE, SCALARS
from extrap_kernels.state.formats import STATE_FORMATS

# Names in the order of their codes in a launch, which is that of the enums in csrc/core; None is code 0.
CODES: dict[str, tuple[Optional[str], ...]] = {
    "extrapolation": (None, "past_gradient", "past_update", "extragradient", "momentum", "gradient_difference"),
    "extrap_scale": ("absolute", "adaptive"),
    "noise": (None, "uniform", "gaussian"),
    "noise_scale": ("absolute", "tensor", "filter", "gradient"),
}

Extrapolation = Literal["past_gradient", "past_update", "extragradient", "momentum", "gradient_difference"]
ExtrapolationNorm = Literal["global"]
ExtrapolationScale = Literal["absolute", "adaptive"]
Noise = Literal["gaussian", "uniform"]
NoiseScale = Literal["absolute", "tensor", "filter", "gradient"]


class ExtrapolationOptions(TypedDict, total=False):
    """Keywords of every optimizer of the package; they live in ``param_groups`` and may differ between groups.

    Attributes:
        extrapolation: direction from the base iterate ``x`` to the point ``y`` where the next gradient is taken.
            ``"past_gradient"`` (default): this worker's last gradient (Popov 1980, Gidel et al. 2019).
            ``"past_update"``: the last update. ``"extragradient"``: a fresh gradient, two backward passes a step
            (Korpelevich 1976). It starts from what the parameters hold; after a switch in mid-run, that is ``y``.
            ``"momentum"``: the first moment as it is, without bias correction and preconditioning (Becker et al. 2024);
            without a momentum, the update. ``"gradient_difference"``: as ``"past_gradient"``, along this worker's last
            gradient less the averaged one (Haruki et al. 2019); 0 for a single worker. ``None``: no extrapolation.
        extrap_lr: inner learning rate; ``None`` (default) follows ``extrap_ratio * lr``. Negative: ``y`` lies against
            the direction, uphill for gradients.
        extrap_ratio: inner over outer learning rate where ``extrap_lr`` is None; may be negative (default: 1).
        extrap_norm: ``"global"``: the direction is divided by its Euclidean norm over all parameters that are stepped,
            of all groups with this option, so that ``y`` lies at the distance ``|extrap_lr|`` from ``x``: the radius of
            SAM (Foret et al. 2021). For ``"momentum"`` the norm is that of the step before. In a step whose norm is 0,
            as in the first one of ``"momentum"``, or not finite, ``y`` is ``x``. Costs one more read of what the
            direction is made of. LARS and LAMB take it with ``"momentum"`` alone. ``None`` (default): the direction
            as it is.
        extrap_scale: ``"absolute"`` (default): 1. ``"adaptive"``: every number of the direction is multiplied by the
            square of its base iterate, and the norm of ``extrap_norm`` is that of the direction times the base iterate
            (ASAM, Kwon et al. 2021). Parameters that are 0 do not move: give biases and gains, which ASAM leaves as
            they are, a param group with ``"absolute"``. LARS and LAMB take it without ``extrap_norm``.
        noise: ``"gaussian"``, ``"uniform"`` (Wen et al. 2018) or ``None`` (default): added to ``y``.
        noise_std: standard deviation (Gaussian) or half width (uniform) of the noise, in units of its scale
            (default: 0.01).
        noise_scale: ``"absolute"`` (default): 1; ``"tensor"``: rms of the parameter; ``"filter"``: rms of each slice
            along dim 0; tensors with fewer than 2 dims get no noise; ``"gradient"``: absolute value of the worker's
            gradient, element by element. For noise defined by L2 norms see ``docs/design.md``.
        seed: seed of the noise and of stochastic rounding, in [0, 2**64) (default: 0). For the noise, each rank adds
            its number.
        max_grad_norm: if the norm of the gradients of all groups exceeds it, they are scaled down to it, as by
            ``torch.nn.utils.clip_grad_norm_``. Costs one more read of the gradients (default: None, no clipping).
        state_dtype: format of the momentum and of the moments. ``torch.float32`` (default): the precision of the
            arithmetic. ``torch.bfloat16``: half their memory and traffic; second moments are rounded
            stochastically. ``torch.uint8``: 8 bits and a shared exponent for each 16 numbers, rounded stochastically,
            for matrices of 4,096 numbers or more. With either, the base iterate of bfloat16 and float16 parameters is
            rounded stochastically to 24 bits. See ``docs/state_formats.md``. For float32, bfloat16 and float16
            parameters.
    """

    extrapolation: Optional[Extrapolation]
    extrap_lr: Union[float, Tensor, None]
    extrap_ratio: float
    extrap_norm: Optional[ExtrapolationNorm]
    extrap_scale: ExtrapolationScale
    noise: Optional[Noise]
    noise_std: float
    noise_scale: NoiseScale
    seed: int
    max_grad_norm: Optional[float]
    state_dtype: torch.dtype


DEFAULTS: ExtrapolationOptions = {
    "extrapolation": "past_gradient",
    "extrap_lr": None,
    "extrap_ratio": 1.0,
    "extrap_norm": None,
    "extrap_scale": "absolute",
    "noise": None,
    "noise_std": 0.01,
    "noise_scale": "absolute",
    "seed": 0,
    "max_grad_norm": None,
    "state_dtype": torch.float32,
}


_FORMATS = tuple(STATE_FORMATS)
_PLAIN: dict[type, tuple[type, ...]] = {float: (float, int), bool: (bool,)}
_CHOICES = tuple(CODES.items())
_CODE_OF = tuple((name, {choice: code for code, choice in enumerate(choices)}) for name, choices in _CHOICES)
# Options that are numbers or flags of a launch under the same name, with the type that they have there.
_OPTIONS = tuple(
    (scalar.name, float if scalar.dtype == "float64" else bool)
    for scalar in SCALARS
    if scalar.is_option and scalar.name not in (*CODES, "seed", "extrap_lr")
)


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` with defaults for those that are missing.

    Raises:
        TypeError: an unknown keyword.
    """
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; the extrapolation options are {list(DEFAULTS)}")
    return {**DEFAULTS, **options}


def shown_in(signature: Signature) -> Signature:
    """Return a signature with the shared options in the place of ``**extrapolation_options``; the same if it has none.

    For ``help()``, editors and command lines that are made of signatures.
    """
    own = [each for each in signature.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    if len(own) == len(signature.parameters):
        return signature
    types = ExtrapolationOptions.__annotations__
    shared = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=default,
            annotation=getattr(types[name], "__forward_arg__", types[name]),  # as it is written
        )
        for name, default in DEFAULTS.items()
        if name not in signature.parameters
    ]
    return signature.replace(parameters=[*own, *shared])


def extrapolates(group: Mapping[str, Any]) -> bool:
    """Whether gradients are taken away from the base iterate; otherwise the optimizer is the plain one."""
    return group["extrapolation"] is not None or group["noise"] is not None


def point_between_steps(group: Mapping[str, Any]) -> Literal["base", "base before extragradient", "extrapolated"]:
    """Return which point the parameters hold after a step."""
    if group["noise"] is None:
        if group["extrapolation"] is None:
            return "base"
        if group["extrapolation"] == "extragradient":
            return "base before extragradient"
    return "extrapolated"


def holds_base(group: Mapping[str, Any]) -> bool:
    """Whether parameters hold the base iterate after a step."""
    return point_between_steps(group) != "extrapolated"


def check_learning_rate(lr: float | Tensor) -> None:
    """Raise ValueError unless ``lr`` is a non-negative number or a one-element tensor."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")


def check_momentum(group: Mapping[str, Any]) -> None:
    """Raise ValueError if an option of SGD's momentum is invalid."""
    if not group["momentum"] >= 0.0:
        raise ValueError(f"Invalid momentum value: {group['momentum']}")
    if not math.isfinite(group["dampening"]):
        raise ValueError(f"Invalid dampening value: {group['dampening']}")
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")


def check_moments(group: Mapping[str, Any]) -> None:
    """Raise ValueError if an option of Adam's moments is invalid."""
    if not group["eps"] >= 0.0:
        raise ValueError(f"Invalid epsilon value: {group['eps']}")
    for i, beta in enumerate(group["betas"]):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


def check(group: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the option, its value and what is allowed, if an option is invalid."""
    check_choices(group)
    if not 0.0 <= float(group["noise_std"]) < math.inf:
        raise ValueError(f"Invalid noise_std value: {group['noise_std']}; it must be finite and not negative")
    if not math.isfinite(float(group["extrap_ratio"])):
        raise ValueError(f"Invalid extrap_ratio value: {group['extrap_ratio']}; it must be finite")
    extrap_lr = group["extrap_lr"]
    if isinstance(extrap_lr, Tensor) and extrap_lr.numel() != 1:
        raise ValueError(f"Invalid extrap_lr value: a tensor of {extrap_lr.numel()} elements; it must have one")
    if extrap_lr is not None and not math.isfinite(float(extrap_lr)):
        raise ValueError(f"Invalid extrap_lr value: {extrap_lr}; it must be None or finite")
    if group["max_grad_norm"] is not None and not float(group["max_grad_norm"]) > 0.0:
        raise ValueError(f"Invalid max_grad_norm value: {group['max_grad_norm']}; it must be None or positive")
    check_seed(group["seed"])


def check_seed(seed: Any) -> int:
    """Return ``seed``; raise ValueError unless it is an int of 64 bits."""
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"Invalid seed value: {seed!r}; it must be an int in [0, 2**64)")
    return seed


def check_choices(group: Mapping[str, Any]) -> None:
    """Raise ValueError for unknown or mutually exclusive values. It is fast, because every step calls it."""
    for name, allowed in _CHOICES:
        if group[name] not in allowed:
            raise ValueError(f"Invalid {name} value: {group[name]!r}; choose one of {allowed}")
    if group["extrapolation"] == "extragradient" and group["noise"] is not None:
        raise ValueError(
            f"Invalid noise value: {group['noise']!r} with extrapolation='extragradient', which takes no noise; "
            "set noise=None or choose extrapolation='past_gradient'"
        )
    if group["extrap_norm"] not in (None, "global"):
        raise ValueError(f"Invalid extrap_norm value: {group['extrap_norm']!r}; choose one of (None, 'global')")
    if group["extrap_norm"] and group["extrapolation"] == "momentum" and group.get("momentum") == 0:
        raise ValueError(
            "Invalid momentum value: 0 with extrapolation='momentum' and extrap_norm='global', which takes the norm of "
            "the momentum before the step; set a momentum, or choose extrapolation='past_gradient'"
        )
    if group["state_dtype"] not in _FORMATS:
        raise ValueError(f"Invalid state_dtype value: {group['state_dtype']!r}; choose one of {_FORMATS}")


def read(group: Mapping[str, Any], number: int, required: Iterable[str]) -> dict[str, Any]:
    """Check and return the options of a param group as scalars of a launch, by name; learning rates may be tensors.

    Args:
        group: the param group.
        number: of the group, for error messages.
        required: options that it must have.

    Raises:
        ValueError: an option is missing, unknown, or not a number.
    """
    for name in required:
        if name not in group:
            raise ValueError(f"param group {number} lacks the option {name!r}; set it: torch.optim requires it, too")
    try:
        check_choices(group)
        return scalars_of(group)
    except ValueError as error:
        raise ValueError(f"{error} (param group {number})") from error


def scalars_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ``group``, whose names are checked, as scalars of a launch; learning rates may be tensors.

    Raises:
        ValueError: an option that is not a number.
    """
    values: dict[str, Any] = {}
    for name, wanted in _OPTIONS:
        if name in group:
            value = group[name]
            # In line, since each call would take as long as stepping a small tensor.
            values[name] = value if type(value) in _PLAIN[wanted] else _scalar_of(name, wanted, value)
    for name, codes in _CODE_OF:
        values[name] = codes[group[name]]
    seed = group["seed"]
    values["seed"] = seed if type(seed) is int and 0 <= seed < 2**64 else check_seed(seed)
    if "betas" in group:
        betas = group["betas"]
        plain = type(betas) is tuple and len(betas) == 2 and type(betas[0]) is float and type(betas[1]) is float
        values["beta1"], values["beta2"] = betas if plain else _betas(betas)
    if group["extrap_lr"] is None:
        values["extrap_lr"] = values["lr"]
    else:
        values["extrap_lr"] = _scalar_of("extrap_lr", float, group["extrap_lr"])
        values["extrap_ratio"] = 1.0
    if group["max_grad_norm"] is not None:
        _scalar_of("max_grad_norm", float, group["max_grad_norm"])
    return values


def _betas(betas: Any) -> tuple[float, float]:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"Invalid betas value: {betas!r}; it must be a pair of numbers")
    return _scalar_of("betas", float, betas[0]), _scalar_of("betas", float, betas[1])


def _scalar_of(name: str, wanted: type, value: Any) -> Any:
    if name in ON_DEVICE and isinstance(value, Tensor) and value.numel() == 1:
        return value
    try:
        if value is None or isinstance(value, str):
            raise TypeError
        return wanted(value)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = "a number" if wanted is float else "True or False"
        raise ValueError(f"Invalid {name} value: {value!r}; it must be {kind}") from error
