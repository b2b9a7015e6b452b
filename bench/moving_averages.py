"""How second moments follow their gradients in each state format, and how large updates become in hostile blocks.

All cases are rows of one matrix, which one optimizer steps: 32 rows of 64 numbers each, whatever blocks a format has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.state_peers import FORMATS, REFERENCE

Row = dict[str, Any]
BETA2 = (0.9, 0.95, 0.999, 0.9999)
SCALES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
ROWS, COLUMNS = 32, 64
# What gradients are multiplied by once the averages have settled.
_SHRINK = {
    "stationary": torch.ones(COLUMNS),
    "all shrink tenfold": torch.full((COLUMNS,), 0.1),
    "every second one shrinks": torch.where(torch.arange(COLUMNS) % 2 == 0, 0.1, 1.0),
}


def _halves(case: str) -> dict[str, slice]:
    """Return the columns that a case is judged by: those that shrink apart from those that do not."""
    if case != "every second one shrinks":
        return {case: slice(None)}
    return {f"{case}: the small": slice(0, None, 2), f"{case}: the large": slice(1, None, 2)}


def roots(name: str, beta2: float, scales: Sequence[float], seed: int = 0) -> Tensor:
    """Return the roots of the second moments that a format ends with, of shape (scales, cases, ROWS, COLUMNS).

    Gradients are normal with standard deviation ``scale``, for ``1 / (1 - beta2)`` steps, at least 50; then, for
    three times as many, times what the case says.
    """
    settle = max(50, round(1 / (1 - beta2)))
    shape = (len(scales), len(_SHRINK), ROWS, COLUMNS)
    moments = FORMATS[name]((shape[0] * shape[1] * ROWS, COLUMNS), (0.9, beta2))
    before = torch.tensor(scales)[:, None, None, None].expand(shape)
    after = before * torch.stack(list(_SHRINK.values()))[None, :, None, :]
    generator = torch.Generator().manual_seed(seed)
    for t in range(4 * settle):
        noise = torch.randn(ROWS, COLUMNS, generator=generator)
        moments.update((noise * (before if t < settle else after)).view(-1, COLUMNS))
    return moments.root().view(shape)


def against_float32(found: Tensor, reference: Tensor, scales: Sequence[float]) -> Iterator[Row]:
    """Yield for each scale and case the quantiles of the roots over those in float32, from :func:`roots`."""
    for i, scale in enumerate(scales):
        for k, case in enumerate(_SHRINK):
            for label, columns in _halves(case).items():
                ratio = (found[i, k][:, columns].double() / reference[i, k][:, columns].double()).flatten()
                low, median, high = ratio.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
                yield {"gradients": scale, "case": label, "5%": low, "median": median, "95%": high}


def follow(name: str, beta2: float, scales: Sequence[float] = SCALES) -> list[Row]:
    """Return :func:`against_float32` of a format."""
    reference = roots(REFERENCE, beta2, scales)
    return list(against_float32(roots(name, beta2, scales), reference, scales))


# Gradients of a hostile block, given standard normal numbers of shape (ROWS, COLUMNS) and the step, from 0.
_FIRST_OF_16 = torch.arange(COLUMNS) % 16 == 0
_FIRST_OF_256 = (torch.arange(ROWS * COLUMNS) % 256 == 0).view(ROWS, COLUMNS)
HOSTILE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "one of 16 is 1e8 times as large": lambda z, t: z * torch.where(_FIRST_OF_16, 1e4, 1e-4),
    "one of 256 is 1e8 times as large": lambda z, t: z * torch.where(_FIRST_OF_256, 1e4, 1e-4),
    "one of 16 jumps once": lambda z, t: z * torch.where(_FIRST_OF_16 & torch.tensor(t == 200), 1e4, 1e-4),
    "each a tenth of the one before": lambda z, t: z * 10.0 ** -(torch.arange(COLUMNS) % 16),
    "rarely not zero beside a large one": lambda z, t: z * torch.where(_FIRST_OF_16, 1e2, 1e-3 * (z > 2)),
}
BETAS = ((0.9, 0.999), (0.9, 0.95))


def largest_updates(name: str, betas: tuple[float, float], steps: int = 4000, seed: int = 0) -> list[Row]:
    """Return the largest ``|u|`` over the steps and the numbers, bias-corrected, for each case of :data:`HOSTILE`.

    One row, as other measurements have it.
    """
    moments = FORMATS[name]((len(HOSTILE) * ROWS, COLUMNS), betas)
    generator = torch.Generator().manual_seed(seed)
    largest = torch.zeros(len(HOSTILE))
    for t in range(steps):
        noise = torch.randn(ROWS, COLUMNS, generator=generator)
        u = moments.update(torch.cat([hostile(noise, t) for hostile in HOSTILE.values()]))
        largest = torch.maximum(largest, u.abs().view(len(HOSTILE), -1).amax(1))
    return [dict(zip(HOSTILE, largest.tolist()))]
