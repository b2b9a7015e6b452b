"""Adam's moments in our formats and in those that users would otherwise take, to set them side by side.

torch's arithmetic with moments in bfloat16 and FlashOptim's format, whose kernels need a GPU, are a few lines of ours.
bitsandbytes and torchao are the packages themselves: ``pip install bitsandbytes torchao``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from extrap_kernels import ExtrapAdam

Betas = tuple[float, float]
_EPS = 1e-8  # the default of all of them


class Moments(Protocol):
    """An Adam optimizer of one matrix."""

    def update(self, gradient: Tensor) -> Tensor:
        """Take a step; return ``u``, the change of the parameter at learning rate 1."""
        ...

    def root(self) -> Tensor:
        """Return the square root of the second moment as it is stored, float32, without bias correction."""
        ...


class Optimizer:
    """Moments of a real optimizer.

    Args:
        build: from a parameter to its optimizer, with learning rate 1.
        second: from the optimizer's state of the parameter to its second moment.
        shape: of the parameter.
    """

    def __init__(self, build: Callable[[Tensor], Any], second: Callable[[Any], Tensor], shape: tuple[int, int]) -> None:
        self._param = torch.nn.Parameter(torch.zeros(shape))
        self._optimizer, self._second = build(self._param), second

    def update(self, gradient: Tensor) -> Tensor:
        """See :class:`Moments`."""
        with torch.no_grad():
            self._param.zero_()  # the change is then exact
        self._param.grad = gradient
        self._optimizer.step()
        return -self._param.detach()

    def root(self) -> Tensor:
        """See :class:`Moments`."""
        return self._second(self._optimizer).sqrt()


class Written:
    """Moments that are decoded, moved on in float32, used, and encoded, each in a few lines of PyTorch."""

    def __init__(self, shape: tuple[int, int], betas: Betas, codecs: tuple[Callable[[Tensor], Tensor], ...]) -> None:
        self._m, self._v = torch.zeros(shape), torch.zeros(shape)
        self._betas, self._codecs, self._steps = betas, codecs, 0

    def update(self, gradient: Tensor) -> Tensor:
        """See :class:`Moments`."""
        self._steps += 1
        (beta1, beta2), (first, second) = self._betas, self._codecs
        m = self._m.lerp(gradient, 1 - beta1)
        v = (self._v * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        self._m, self._v = first(m), second(v)
        corrected = (v / (1 - beta2**self._steps)).sqrt_() + _EPS
        return m.div_(1 - beta1**self._steps).div_(corrected)

    def root(self) -> Tensor:
        """See :class:`Moments`."""
        return self._v.sqrt()


def _nearest_bfloat16(value: Tensor) -> Tensor:
    return value.bfloat16().float()


def _groups_of_32(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers relative to the largest of their group, and that as a float16 has it."""
    groups = value.reshape(-1, 32)
    largest = groups.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return groups / largest, largest.half().float()


def _flash_first(value: Tensor) -> Tensor:
    """Companded: 127 steps of ``2a / (1 + |a|)``."""
    relative, scale = _groups_of_32(value)
    code = (2 * relative / (1 + relative.abs()) * 127 + 0.5).floor() / 127
    return (code / (2 - code.abs()) * scale).view_as(value)


def _flash_second(value: Tensor) -> Tensor:
    """Of the root, 255 steps."""
    relative, scale = _groups_of_32(value.sqrt())
    return ((relative * 255 + 0.5).floor() / 255 * scale).square().view_as(value)


def _ours(state_dtype: torch.dtype) -> Callable[[tuple[int, int], Betas], Moments]:
    def make(shape: tuple[int, int], betas: Betas) -> Moments:
        options: dict[str, Any] = {"lr": 1.0, "betas": betas, "eps": _EPS, "extrapolation": None}
        return Optimizer(
            lambda param: ExtrapAdam([param], state_dtype=state_dtype, **options),
            lambda optimizer: optimizer.float32_state_dict()["state"][0]["exp_avg_sq"],
            shape,
        )

    return make


def _bitsandbytes(shape: tuple[int, int], betas: Betas) -> Moments:
    package = importlib.import_module("bitsandbytes")

    def second(optimizer: Any) -> Tensor:
        (state,) = optimizer.state.values()
        codes, largest, table = state["state2"], state["absmax2"], state["qmap2"]
        found: Tensor = package.functional.dequantize_blockwise(codes, absmax=largest, code=table, blocksize=256)
        return found

    return Optimizer(lambda param: package.optim.Adam8bit([param], 1.0, betas=betas, eps=_EPS), second, shape)


def _torchao(shape: tuple[int, int], betas: Betas) -> Moments:
    package = importlib.import_module("torchao.optim")

    def second(optimizer: Any) -> Tensor:
        (state,) = optimizer.state.values()
        found: Tensor = state["exp_avg_sq"].dequantize()
        return found

    return Optimizer(lambda param: package.Adam8bit([param], 1.0, betas=betas, eps=_EPS), second, shape)


REFERENCE = "float32"
OURS = ("bfloat16", "uint8")
FORMATS: dict[str, Callable[[tuple[int, int], Betas], Moments]] = {
    REFERENCE: _ours(torch.float32),
    "bfloat16": _ours(torch.bfloat16),
    "uint8": _ours(torch.uint8),
    "bfloat16 to nearest": lambda shape, betas: Written(shape, betas, (_nearest_bfloat16, _nearest_bfloat16)),
    "FlashOptim, our few lines of it": lambda shape, betas: Written(shape, betas, (_flash_first, _flash_second)),
    "bitsandbytes Adam8bit": _bitsandbytes,
    "torchao Adam8bit": _torchao,
}
PACKAGES = {"bitsandbytes Adam8bit": "bitsandbytes", "torchao Adam8bit": "torchao"}


def available() -> list[str]:
    """Return the names of :data:`FORMATS` whose package is installed, or that need none."""
    return [name for name in FORMATS if name not in PACKAGES or importlib.util.find_spec(PACKAGES[name])]


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    return {PACKAGES[name]: importlib.metadata.version(PACKAGES[name]) for name in available() if name in PACKAGES}
