"""``python -m extrap_kernels selftest``: compares a backend with the reference on this machine.

Every optimizer, extrapolation, noise and dtype takes a few steps on the backend and, on the CPU, on the plain-PyTorch
reference; on a GPU, a step is also captured in a CUDA graph, run on two streams, and offloaded to the host. The last
lines are the figures that a bug report needs.
"""

from __future__ import annotations

import inspect
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

import extrap_kernels
from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapSGD, backends, command_line, factory, machine, ncu
from extrap_kernels.link import CudaLink, Link
from extrap_kernels.offload import offload_over
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.options import CODES
from extrap_kernels.state.formats import STATE_FORMATS
from extrap_kernels.state.layout import arithmetic_dtype

# Options that take the branches of a rule, for the optimizers that have them.
_OPTIONS = {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True, "trust_coefficient": 0.3}


def optimizers() -> dict[str, tuple[Callable[..., ExtrapOptimizer], dict[str, Any]]]:
    """Return every optimizer of the package by a title, with options for each set of buffers that it may keep."""
    found: dict[str, tuple[Callable[..., ExtrapOptimizer], dict[str, Any]]] = {}
    for optimizer_type in factory.optimizers().values():
        name = optimizer_type.__name__
        accepted = inspect.signature(optimizer_type).parameters
        options = {key: value for key, value in _OPTIONS.items() if key in accepted}
        optional = [buffer.option for buffer in optimizer_type.rule.SPEC.buffers if buffer.option is not None]
        if optional:
            without = {key: value for key, value in options.items() if key not in (*optional, "nesterov")}
            found[name] = optimizer_type, without
        found[", ".join([name, *optional])] = optimizer_type, options
    return found


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)

# Relative to the largest element: of the base iterate, and of what is rounded to the parameter's dtype.
_TOLERANCE = {
    torch.float32: (4e-6, 4e-6),
    torch.float64: (1e-12, 1e-12),
    torch.bfloat16: (4e-6, 2.0**-7),
    torch.float16: (4e-6, 2.0**-10),
    torch.complex64: (4e-6, 4e-6),
}


def perturbations(name: str, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Yield options of one of :func:`optimizers`: every extrapolation with every noise, norms, compact states."""
    noises: list[dict[str, Any]] = [{"noise": None}]
    for noise, scale in itertools.product(CODES["noise"][1:], CODES["noise_scale"]):
        noises.append({"noise": noise, "noise_scale": scale, "noise_std": 0.05, "seed": 7})
    for extrapolation, noise_options in itertools.product(CODES["extrapolation"], noises):
        if extrapolation != "extragradient" or noise_options["noise"] is None:
            yield {"extrapolation": extrapolation, **noise_options}
    optimizer_type: Any = optimizers()[name][0]
    yield {"extrapolation": "past_gradient", "extrap_scale": "adaptive"}
    if optimizer_type.rule.SPEC.norm is None:
        for extrapolation, scale in itertools.product(
            ("past_gradient", "past_update", "extragradient"), CODES["extrap_scale"]
        ):
            options = {"extrap_norm": "global", "extrap_lr": -0.3, "extrap_scale": scale}
            yield {"extrapolation": extrapolation, **options}
    if "momentum" in name or "momentum" not in inspect.signature(optimizer_type).parameters:
        yield {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3}
    # Norms may differ in the last bit, and then a number may be rounded to its other neighbour.
    if arithmetic_dtype(dtype) == torch.float32 and optimizer_type.rule.SPEC.norm is None:
        yield from ({"state_dtype": state_dtype} for state_dtype in STATE_FORMATS if state_dtype != torch.float32)


def _parameters(dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Return parameters, always the same, whose sizes and alignments cover every path of a kernel."""
    generator = torch.Generator().manual_seed(1)

    def make(*shape: int) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        return torch.randn(shape, dtype=wide, generator=generator).to(device, dtype)

    return [
        make(3),
        make(7, 33),
        make(4097),
        make(130)[1:],
        make(0),
        make(4, 3, 5, 2),
        make(6, 9).t(),
        make(9, 8)[:, ::2],
        make(66, 64),  # in blocks, if the state is
        make(64 * 80 + 1)[1:].view(64, 80),
    ]


def _train(optimizer: ExtrapOptimizer, params: list[Tensor], steps: int = 2) -> None:
    generator = torch.Generator().manual_seed(2)

    def gradients() -> None:
        for p in params:
            wide = torch.promote_types(p.dtype, torch.float32)
            p.grad = torch.randn(p.shape, dtype=wide, generator=generator).to(p.device, p.dtype)

    for _ in range(steps):
        gradients()
        if optimizer.param_groups[0]["extrapolation"] == "extragradient":
            optimizer.extrapolate()
            gradients()
        optimizer.step()


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    if expected.numel() == 0:
        return 0.0
    difference = (actual.detach().cpu().to(torch.complex128) - expected.detach().to(torch.complex128)).abs().max()
    return float(difference) / max(float(expected.abs().max()), 1e-30)


@dataclass(frozen=True)
class Parity:
    """How far steps of a backend are from those of the reference.

    Attributes:
        cases: extrapolations and noises that were tried.
        identical: of these, how many gave the same bits.
        base_error: largest error of a base iterate, relative to its largest element.
        error: the same of a parameter.
        passed: both are within what the arithmetic allows.
    """

    cases: int
    identical: int
    base_error: float
    error: float
    passed: bool


def parity(name: str, dtype: torch.dtype, device: torch.device, backend: str) -> Parity:
    """Compare one of :func:`optimizers` under all perturbations with the reference."""
    optimizer_type, own = optimizers()[name]
    cases = identical = 0
    base_error = error = 0.0
    for options in perturbations(name, dtype):
        ours, expected = _parameters(dtype, device), _parameters(dtype, torch.device("cpu"))
        optimizer = optimizer_type(ours, lr=0.1, backend=backend, **own, **options)
        reference = optimizer_type(expected, lr=0.1, backend="reference", **own, **options)
        _train(optimizer, ours)
        _train(reference, expected)
        bases = [(optimizer.base_of(p), reference.base_of(q)) for p, q in zip(ours, expected)]
        cases += 1
        identical += all(torch.equal(a.detach().cpu(), b) for a, b in [*zip(ours, expected), *bases])
        base_error = max(base_error, *(_relative_error(a, b) for a, b in bases))
        error = max(error, *(_relative_error(a, b) for a, b in zip(ours, expected)))
    of_base, of_parameter = _TOLERANCE[dtype]
    passed = base_error <= of_base and error <= of_parameter  # False for NaN
    return Parity(cases, identical, base_error, error, passed)


def _two_optimizers(device: torch.device, backend: str) -> list[tuple[ExtrapOptimizer, list[Tensor]]]:
    pairs: list[tuple[ExtrapOptimizer, list[Tensor]]] = []
    for optimizer_type in (ExtrapSGD, ExtrapLAMB):
        params = [torch.linspace(-1, 1, n, device=device) for n in (1000, 4097, 1 << 18)]
        pairs.append((optimizer_type(params, lr=0.1, noise="uniform", backend=backend), params))
        for p in params:
            p.grad = p.detach().cos()
    return pairs


def graph_capture(device: torch.device, backend: str) -> bool:
    """Whether replays of a captured step, with new gradients each time, equal eager steps. CUDA only."""
    same = True
    for (captured, params), (eager, copies) in zip(_two_optimizers(device, backend), _two_optimizers(device, backend)):
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            captured.step()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured.step()
        eager.step()
        for scale in (2.0, 0.5, 3.0):
            for p, q in zip(params, copies):
                assert p.grad is not None and q.grad is not None
                p.grad.mul_(scale)
                q.grad.mul_(scale)
            graph.replay()
            eager.step()
        same = same and all(torch.equal(p, q) for p, q in zip(params, copies))
    return same


def two_streams(device: torch.device, backend: str) -> bool:
    """Whether steps on two streams at once equal the same steps one after the other. CUDA only."""
    at_once, one_by_one = _two_optimizers(device, backend), _two_optimizers(device, backend)
    streams = [torch.cuda.Stream(device) for _ in at_once]
    torch.cuda.synchronize(device)
    for _ in range(5):
        for stream, (optimizer, _) in zip(streams, at_once):
            with torch.cuda.stream(stream):
                optimizer.step()
        for optimizer, _ in one_by_one:
            optimizer.step()
    torch.cuda.synchronize(device)
    pairs = zip(at_once, one_by_one)
    return all(torch.equal(p, q) for (_, ours), (_, theirs) in pairs for p, q in zip(ours, theirs))


def _train_along_itself(optimizer: ExtrapOptimizer, params: nn.ParameterList, steps: int) -> None:
    """Take steps along gradients that depend on the parameters, by operations that are exact on every device."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        terms = []
        for p in params:
            random = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
            terms.append((p * (p.detach() / 2 + random)).sum().float())
        torch.stack(terms).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def offloaded(link: Link) -> bool:
    """Whether an optimizer that is offloaded over ``link`` gives the bits of one over parameters on the host."""
    runs = []
    for device in (torch.device("cpu"), link.device):
        shapes = itertools.product((torch.float32, torch.bfloat16), (1000, 4097, 1 << 20))
        params = nn.ParameterList(torch.linspace(-1, 1, n, dtype=dtype).to(device) for dtype, n in shapes)
        runs.append((ExtrapAdamW(params, lr=0.1, noise="uniform"), params))
    offload_over(link, runs[1][1], runs[1][0], bucket_mb=1)
    for run in runs:
        _train_along_itself(*run, steps=5)
    return all(torch.equal(p, q.cpu()) for p, q in zip(runs[0][1], runs[1][1]))


@dataclass(frozen=True)
class Speed:
    """Of a step of ExtrapSGD with momentum: seconds, and bytes per second, next to those of ``y.copy_(x)``."""

    seconds: float
    step: float
    copy: float


def _seconds(action: Callable[[], object], ahead: Callable[[], object], device: torch.device) -> float:
    """Time ``action``; on a GPU without its launches, which the host prepares while ``ahead`` runs."""
    if device.type != "cuda":
        before = time.perf_counter()
        action()
        return time.perf_counter() - before
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    ahead()
    start.record()
    action()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3


def speed(device: torch.device, backend: str, numel: int, rounds: int = 20) -> Speed:
    """Measure steps over one float32 tensor, of 24 bytes an element, and copies, of 8, in turns: medians."""
    param, x, y = (torch.ones(numel, device=device) for _ in range(3))
    param.grad = torch.full_like(param, 1e-3)
    optimizer = ExtrapSGD([param], lr=0.1, momentum=0.9, nesterov=True, backend=backend)

    def copy() -> None:
        y.copy_(x)

    optimizer.step()
    copy()
    times = [[_seconds(action, copy, device) for action in (optimizer.step, copy)] for _ in range(rounds)]
    step, copied = map(statistics.median, zip(*times))
    return Speed(step, 24 * numel / step, 8 * numel / copied)


def figures(device: torch.device, backend: str, numel: int) -> dict[str, str]:
    """Return what a bug report needs, by name; the speed only of a backend that is made for it."""
    found = {
        "extrap_kernels": extrap_kernels.__version__,
        "torch": torch.__version__,
        "backend": backend,
        **machine.describe(device),
    }
    if not backends.BACKENDS[backend].for_speed:
        return found
    measured = speed(device, backend, numel)
    if device.type == "cuda":
        found["sectors"] = ncu.figure(device, backend, numel)
    return {
        **found,
        "step": f"{measured.seconds * 1e3:.3g} ms for one float32 tensor of {numel:,}",
        "bandwidth": f"{measured.step / 1e9:.3g} GB/s, {measured.step / measured.copy:.2f} of y.copy_(x)",
        "y.copy_(x)": f"{measured.copy / 1e9:.3g} GB/s",
    }


def chosen(device_name: Optional[str], backend: str) -> tuple[torch.device, str]:
    """Return the device and the backend to test.

    Args:
        device_name: ``"cuda"``, ``"cpu"`` or another name of a device; None: a GPU where there is one.
        backend: its name; ``"auto"``: the one that tensors of the device get.

    Raises:
        RuntimeError: the device or the backend is unknown to torch or not available.
        ValueError: no backend has this name.
    """
    device = command_line.device(device_name or ("cuda" if torch.cuda.is_available() else "cpu"))
    return device, backends.resolve(backend, device).name


def _parities(device: torch.device, backend: str) -> Iterator[dict[str, Any]]:
    for name, dtype in command_line.progress(list(itertools.product(optimizers(), DTYPES)), "checks"):
        what = {"optimizer": name, "dtype": str(dtype).removeprefix("torch.")}
        try:
            found = parity(name, dtype, device, backend)
        except RuntimeError as error:
            raise RuntimeError(f"steps of {' with '.join(what.values())} on backend {backend!r} failed") from error
        yield {**what, **asdict(found)}


def results(device: torch.device, backend: str) -> dict[str, Any]:
    """Carry out all checks; return what is printed of them, made of what JSON has."""
    parities = list(_parities(device, backend))
    checks = {}
    if device.type == "cuda":
        checks["captured in a CUDA graph"] = graph_capture(device, backend)
        checks["on two streams"] = two_streams(device, backend)
        checks["offloaded to the host"] = offloaded(CudaLink(device))
    return {
        "passed": all(row["passed"] for row in parities) and all(checks.values()),
        "parity": parities,
        "checks": checks,
        "figures": figures(device, backend, 100_000_000 if device.type == "cuda" else 10_000_000),
    }


def run(device: torch.device, backend: str, *, as_json: bool = False) -> bool:
    """Print tables of all checks, or JSON; return whether they passed. Arguments as :func:`chosen` returns them."""
    found = results(device, backend)
    if as_json:
        print(json.dumps(found, indent=2))
        return bool(found["passed"])
    print(f"backend {backend!r} on {device}, torch {torch.__version__}, against the reference on the CPU\n")
    heads = ("optimizer", "dtype", "", "cases", "same bits", "error of x", "of y")
    rows = (
        (row["optimizer"], row["dtype"], _ok(row["passed"]), str(row["cases"]), str(row["identical"]))
        + tuple(f"{row[name]:.1e}" for name in ("base_error", "error"))
        for row in found["parity"]
    )
    command_line.show(heads, rows, numbers=heads[3:])
    for title, good in found["checks"].items():
        print(f"{title}: {_ok(good)}")
    print("all checks passed" if found["passed"] else "FAILED: see above")
    command_line.show(("for a bug report", ""), found["figures"].items())
    return bool(found["passed"])


def _ok(passed: bool) -> str:
    return "ok" if passed else "FAILED"
