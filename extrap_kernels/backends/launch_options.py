"""The options of a param group as the numbers that the Triton kernels take."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Union

import torch
from torch import Tensor

from extrap_kernels.backends.scaling import Scaling
from extrap_kernels.triton_kernels import options as flag
from extrap_kernels.triton_kernels.rules import RULES_WITH_DECAY


def _bits(value: Any) -> int:
    """Return an int64 with the bits of a float64."""
    bits: int = struct.unpack("<q", struct.pack("<d", float(value)))[0]
    return bits


class LaunchOptions:
    """What the kernels take besides the tables.

    Args:
        group: the param group.
        rule: name of the rule.
        key: seed plus rank, in [0, 2**64).
        scaling: factors of the gradients, on ``device`` or as numbers.
        device: where the kernels are; numbers there are not read on the host.

    Attributes:
        numbers: a value for each name in :data:`extrap_kernels.triton_kernels.options.NUMBERS`. They may hold addresses
            of tensors that live as long as this object.
    """

    def __init__(
        self, group: Mapping[str, Any], rule: str, *, key: int, scaling: Scaling, device: torch.device
    ) -> None:
        self._device = device
        self._held: list[Tensor] = []
        self._flags = 0
        decay = float(group["weight_decay"]) if rule not in RULES_WITH_DECAY else 0.0
        decoupled = group.get("decoupled_weight_decay", False)
        scaled = isinstance(scaling.grad_scale, Tensor) or scaling.grad_scale != 1
        extrapolation, noise_scale = group["extrapolation"], group["noise_scale"]
        self._set(flag.SCALED, scaled)
        self._set(flag.MAXIMIZE, group["maximize"])
        self._set(flag.COUPLED, decay != 0 and not decoupled)
        self._set(flag.DECOUPLED, decay != 0 and decoupled)
        self._set(flag.NESTEROV, group.get("nesterov", False))
        self._set(flag.PAST_GRADIENT, extrapolation == "past_gradient")
        self._set(flag.PAST_UPDATE, extrapolation == "past_update")
        self._set(flag.EXTRAGRADIENT, extrapolation == "extragradient")
        self._set(flag.GRADIENT_NOISE, noise_scale == "gradient")
        self._set(flag.ROW_NOISE, noise_scale in ("tensor", "filter"))
        follows_lr = group["extrap_lr"] is None
        betas = group.get("betas", (0.0, 0.0))
        self.numbers = (
            self._number(group["lr"], flag.LR_ON_DEVICE),
            self._number(group["lr"] if follows_lr else group["extrap_lr"], flag.EXTRAP_LR_ON_DEVICE),
            _bits(group["extrap_ratio"] if follows_lr else 1.0),
            _bits(group["weight_decay"]),
            _bits(group.get("momentum", 0.0)),
            _bits(group.get("dampening", 0.0)),
            _bits(betas[0]),
            _bits(betas[1]),
            _bits(group.get("eps", 0.0)),
            _bits(group.get("trust_coefficient", 1.0)),
            _bits(group["noise_std"]),
            self._number(scaling.grad_scale, flag.GRAD_SCALE_ON_DEVICE),
            self._number(scaling.clip, flag.CLIP_ON_DEVICE),
            0 if scaling.found_inf is None else self._address(scaling.found_inf),
            key - 2**64 if key >= 2**63 else key,
            self._flags,
        )

    def _set(self, bit: Any, condition: bool) -> None:
        if condition:
            self._flags |= bit.value

    def _number(self, value: Union[float, Tensor], on_device: Any) -> int:
        """Return the bits of a number, or the address of one on the device, which the flag ``on_device`` then says."""
        if not isinstance(value, Tensor) or value.device.type != self._device.type:
            return _bits(value)
        self._set(on_device, True)
        return self._address(value)

    def _address(self, value: Tensor) -> int:
        """Return the address of a number on the device, with a lowest bit of 1 where it is a float64."""
        dtype = torch.float32 if value.dtype == torch.float32 else torch.float64
        value = value.to(self._device, dtype)
        self._held.append(value)
        return value.data_ptr() | int(dtype == torch.float64)
