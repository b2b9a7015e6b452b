"""The scalars of a launch: one ordered list for Python, C++ (``csrc/core/config.h``) and Triton.

Every scalar takes 8 bytes, so a position in the list is a position in the row.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Mapping
from typing import NamedTuple, Union


class Scalar(NamedTuple):
    """A scalar of the row.

    Attributes:
        name: name of the scalar; if ``is_option``, also of the option of the param group.
        dtype: type in the row.
        default: value if nothing sets it.
        is_option: whether the param group sets it; otherwise the step does.
    """

    name: str
    dtype: str
    default: float = 0
    is_option: bool = True


_FORMATS = {"float64": "d", "uint64": "Q", "int64": "q"}

SCALARS = (
    Scalar("lr", "float64"),
    # The inner learning rate is extrap_lr * extrap_ratio: lr and a ratio where it follows the outer one.
    Scalar("extrap_lr", "float64"),
    Scalar("extrap_ratio", "float64", 1),
    Scalar("weight_decay", "float64"),
    Scalar("momentum", "float64"),
    Scalar("dampening", "float64"),
    Scalar("beta1", "float64"),
    Scalar("beta2", "float64"),
    Scalar("eps", "float64"),
    Scalar("trust_coefficient", "float64", 1),
    Scalar("noise_std", "float64"),
    Scalar("grad_scale", "float64", 1, is_option=False),
    Scalar("clip", "float64", 1, is_option=False),
    Scalar("key", "uint64", is_option=False),  # of the noise: seed plus rank
    Scalar("seed", "uint64"),  # of the rounding: the same on every rank
    Scalar("phase", "int64", is_option=False),
    Scalar("extrapolation", "int64"),
    Scalar("extrap_scale", "int64"),
    Scalar("noise", "int64"),
    Scalar("noise_scale", "int64"),
    Scalar("nesterov", "int64"),
    Scalar("maximize", "int64"),
    Scalar("decoupled_weight_decay", "int64"),
    Scalar("layer_adaptation", "int64", 1),  # of rules with a norm
)

# Scalars that may be tensors on the device and are then read there, without a synchronization.
ON_DEVICE = ("lr", "extrap_lr", "grad_scale", "clip")

_ROW = struct.Struct("=" + "".join(_FORMATS[scalar.dtype] for scalar in SCALARS))
_DEFAULTS = {scalar.name: scalar.default for scalar in SCALARS}
_in_order = operator.itemgetter(*_DEFAULTS)


def pack(values: Mapping[str, Union[float, int]]) -> bytes:
    """Return a row of all scalars; those without a value get their default."""
    return _ROW.pack(*_in_order({**_DEFAULTS, **values}))


def unpack(row: bytes) -> dict[str, Union[float, int]]:
    """Return the scalars of a row by name."""
    return {scalar.name: value for scalar, value in zip(SCALARS, _ROW.unpack(row))}
