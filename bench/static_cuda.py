"""The CUDA kernels as nvcc compiled them into the extension: registers, spills, accesses, instructions, bytes moved.

``python -m bench static --write-docs`` writes :func:`markdown` to docs/generated/cuda_kernels.md, and
``python -m bench.static_cuda`` prints it. The bytes are counted in emulated steps.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench import accesses, baselines, gpu_model, report, sass
from bench.static import SLOTS, KernelRow
from extrap_kernels import _C, selftest
from extrap_kernels.reference.noise import noise

_STORAGE = {
    "float": "fp32",
    "double": "fp64",
    "BFloat16": "bf16",
    "Float16": "fp16",
    "Block8": "8-bit",
    "Float24": "24-bit",
}
# state_dtype by what a kernel's name says of its moments, or of its base iterate if it has none.
_STATE_DTYPES = {"(bf16": torch.bfloat16, "(8-bit": torch.uint8, "(24-bit": torch.bfloat16}
_DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}
# Operands of the noise: of every hash (csrc/core/random_bits.h), and of every angle of Gaussian noise (noise.h).
_HASH, _ANGLE = "0x7feb352d", "0x7fff00"


class Kernel(NamedTuple):
    """One kernel for one GPU, as compiled into the extension.

    Attributes:
        name: what it does, with rule, parameter dtype and gradient dtype.
        target: as ``sm_90``.
        registers: 32-bit registers per thread.
        stack: stack bytes per thread: spills, or arrays in local memory.
        local_accesses: instructions that read or write local memory.
        wide_loads: instructions that load 128 bits from global memory.
        wide_stores: instructions that store 128 bits to global memory.
        half_loads: those that load 64 bits of a tensor: four numbers of 16 bits, or one of float64.
        half_stores: those that store 64 bits.
        instructions: of a step, those of an element on the shortest path, by the noise that is drawn ("": none).
    """

    name: str
    target: str
    registers: int
    stack: int
    local_accesses: int
    wide_loads: int
    wide_stores: int
    half_loads: int
    half_stores: int
    instructions: dict[str, float]


def cuobjdump(*arguments: str) -> str:
    """Run NVIDIA's cuobjdump, from PATH or from Triton's wheel, and return what it prints.

    Raises:
        RuntimeError: cuobjdump was not found.
    """
    tool = shutil.which("cuobjdump")
    if tool is None:
        try:
            import triton
        except ImportError as error:
            raise RuntimeError("cuobjdump not found: install nvidia-cuda-cuobjdump, or triton, which has it") from error
        tool = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def _readable(symbol: str) -> str:
    text = subprocess.run(["c++filt", symbol], check=True, capture_output=True, text=True).stdout
    text = re.sub(r"extrap::(cuda::|baseline::)?", "", text)
    storages = [_STORAGE[name] for name in re.findall(rf"\b({'|'.join(_STORAGE)})\b", text)]
    # Of the parameter, the gradient, the base iterate and the buffers.
    compact = []
    if len(storages) > 3 and storages[3] != storages[2]:
        compact = ["(24-bit base)" if storages[3] == "fp32" else f"({storages[3]} moments)"]
    step = re.search(r"StepKernel<(\w+), .*(true|false)>", text)
    if step:
        return " ".join(["step", step[1], *storages[:2], *compact, *(["noise"] if step[2] == "true" else [])])
    norms = re.search(r"NormSource<(\w+),", text)
    if norms:
        return " ".join(["norms", norms[1], *storages[:2], *compact])
    directions = re.search(r"DirectionSource<(\w+),", text)
    if directions:
        return " ".join(["directions", directions[1], *storages[:2], *compact])
    return f"sums of {'x' if '(Column)1' in text else 'gradients'} {storages[0]}"


@lru_cache
def kernels(library: str = _C.__file__) -> list[Kernel]:
    """Return all CUDA kernels of a built extension.

    Raises:
        RuntimeError: it was built without CUDA, or a tool is missing.
    """
    if not _C.cuda_built:
        raise RuntimeError("the extension was built without CUDA: build it where nvcc is on PATH")
    found = []
    for target, usage in _by_target(cuobjdump("-res-usage", library)):
        code = dict(_by_function(cuobjdump("-sass", "-arch", target, library)))
        for symbol, registers, stack, local in re.findall(
            r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage
        ):
            text, name = code[symbol], _readable(symbol)
            found.append(
                Kernel(
                    name,
                    target,
                    int(registers),
                    max(int(stack), int(local)),
                    len(re.findall(r"LDL\b", text)) + len(re.findall(r"STL\b", text)),
                    len(re.findall(r"LDG\.E\S*\.128", text)),
                    len(re.findall(r"STG\.E\S*\.128", text)),
                    len(re.findall(r"LDG\.E\.LTC128B\.64", text)),  # scalars of a launch have no hint
                    len(re.findall(r"STG\.E\S*\.64", text)),
                    _instructions(name, text) if name.startswith("step") else {},
                )
            )
    return sorted(found)


def _by_target(text: str) -> list[tuple[str, str]]:
    parts: dict[str, str] = {}
    for part in text.split("Fatbin elf code:")[1:]:
        target = re.search(r"arch = (\S+)", part)
        assert target is not None
        parts[target[1]] = parts.get(target[1], "") + part
    return sorted(parts.items())


def _by_function(text: str) -> list[tuple[str, str]]:
    return [(part.split(None, 1)[0], part) for part in text.split("Function : ")[1:]]


def parts_together(name: str) -> int:
    """Return how many parts a step kernel for moments in 8 bits has on their way at a time: kTogether."""
    _, rule, param, gradient, *_ = name.split()
    one_buffer = rule not in ("Adam", "Lamb")
    return 1 if name.endswith("noise") or not (one_buffer or "16" in param and "16" in gradient) else 2


def _instructions(name: str, code: str) -> dict[str, float]:
    bits, elements = (128, 2) if "fp64" in name else (64, 4)  # of a tile, and of a part: kPart of step_kernel.h
    if "8-bit" in name:
        bits = 32  # codes; exponents are narrower
        elements *= parts_together(name)
    ways = {"uniform": [_HASH], "gaussian": [_HASH, _ANGLE]} if name.endswith("noise") else {"": []}
    update = arithmetic_of_update(name.split()[1])
    return {
        kind: sass.fewest_instructions(code, bits, operands, int(elements * (update + arithmetic_of_noise(kind))))
        / elements
        for kind, operands in ways.items()
    }


class _Arithmetic(TorchDispatchMode):
    """Counts additions and multiplications in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Optional[dict[str, Any]] = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__.rstrip("_")
        self.count += name in ("add", "sub", "rsub", "mul") and result.dtype == torch.float32
        return result


@cache
def arithmetic_of_update(variant: str) -> int:
    """Return the additions and multiplications of an element's update without extrapolation, decay and Nesterov.

    As the reference does them, which the kernels follow operation by operation.

    Args:
        variant: of a rule, such as ``SgdMomentum``.
    """
    optimizer_type, options = _step_of(variant)
    one = torch.ones(1)
    optimizer = optimizer_type([torch.nn.Parameter(one)], **options)
    group = {**optimizer.param_groups[0], "weight_decay": 0.0, "nesterov": False}
    buffers = {buffer.name: one.clone() for buffer in optimizer.rule.SPEC.buffers_of(group)}
    with _Arithmetic() as counted:
        optimizer.rule.direction(group, 1, one, one, one, buffers, 1.0)
    return counted.count + 2  # x - u * lr


@cache
def arithmetic_of_noise(kind: str) -> float:
    """Return the additions and multiplications of an element's noise in single precision; ``""`` is no noise.

    As the reference does them: two elements share a word, and what is fused or of integers does not count.
    """
    if not kind:
        return 0
    with _Arithmetic() as counted:
        noise(kind, torch.tensor([0, 1]), key=0, parameter=0, step=1)
    return counted.count / 2 + 2  # y + n * amplitude


def bytes_moved(rule: str, dtype: torch.dtype, **options: Any) -> float:
    """Return the bytes per parameter that an emulated step loads and stores; ``options`` are the optimizer's."""
    return accesses.of_step(baselines.OURS[rule], dtype, dtype, {**baselines.OPTIONS[rule], **options}).bytes


def report_rows() -> list[KernelRow]:
    """Return the step kernels of SGD with momentum and of Adam, for each GPU that the extension was built for."""
    rows = []
    options: dict[str, dict[str, Any]] = {
        "": {},
        " (bf16 moments)": {"state_dtype": torch.bfloat16},
        " (8-bit moments)": {"state_dtype": torch.uint8},
    }
    for (rule, name), (dtype, short), state in itertools.product(
        (("sgd", "SgdMomentum"), ("adamw", "Adam")), ((torch.float32, "fp32"), (torch.bfloat16, "bf16")), options
    ):
        title = f"step {name} {short} {short}{state}"
        moved, floor = bytes_moved(rule, dtype, **options[state]), baselines.our_bytes(rule, dtype, **options[state])
        for kernel in kernels():
            if kernel.name in (title, f"{title} noise"):
                bits = 128 if kernel.wide_loads and kernel.wide_stores else 64
                rows.append(KernelRow(kernel.name, kernel.target, kernel.registers, kernel.stack, bits, moved, floor))
    return rows


def _step_of(variant: str) -> tuple[Any, dict[str, Any]]:
    """Return an optimizer and options whose step has the kernel of a rule's variant, such as SgdMomentum."""
    name, has_momentum = variant.removesuffix("Momentum").lower(), variant.endswith("Momentum")
    for optimizer, options in selftest.optimizers().values():
        spec = optimizer.rule.SPEC  # type: ignore[attr-defined]
        if spec.name.replace("_", "") == name and ("momentum" in options) is has_momentum:
            # Without layer adaptation, no launch for norms comes before the step.
            return optimizer, {**options, **({"layer_adaptation": False} if spec.norm else {})}
    raise LookupError(f"no optimizer of the package has the rule of the kernel {variant!r}")


@cache
def _sectors(variant: str, param: str, gradient: str, state_dtype: torch.dtype) -> float:
    optimizer, options = _step_of(variant)
    options["state_dtype"] = state_dtype
    return accesses.of_step(optimizer, _DTYPES[param], _DTYPES[gradient], options).sectors


def slot_rows() -> list[dict[str, Any]]:
    """Return the instructions and the sectors of each step kernel, and the issue slots that follow in a model of GPUs.

    Left out are kernels for gradients of another dtype than the parameter where this torch has none.
    """
    found = kernels()
    archs = sorted({int(kernel.target[3:]) for kernel in found})
    rows = []
    for name in sorted({kernel.name for kernel in found if kernel.instructions}):
        rule, param, gradient, *rest = name.split()[1:]
        if param != gradient and not hasattr(torch.Tensor, "grad_dtype"):
            continue
        state_dtype = _STATE_DTYPES.get(rest[0], torch.float32) if rest else torch.float32
        moved = _sectors(rule, param, gradient, state_dtype)
        by_arch = {int(kernel.target[3:]): kernel.instructions for kernel in found if kernel.name == name}
        for kind in by_arch[archs[0]]:
            row = {"kernel": f"{name}, {kind}" if kind else name, "B/param, sectors": moved}
            row |= {f"instructions, sm_{arch}": by_arch[arch][kind] for arch in archs}
            for gpu in gpu_model.GPUS:
                arch = gpu.machine_code(archs)
                if arch is not None:
                    share = gpu.issue_share(moved, by_arch[arch][kind])
                    row[f"model: slots of {gpu.name}, sm_{arch}"] = gpu_model.percent(share)
            rows.append(row)
    return rows


def launches(rule: str, numels: Sequence[int]) -> int:
    """Return the launches of a step on tensors of these sizes."""
    return _C.cuda_launches(baselines.BUFFERS[rule], list(numels))


def markdown() -> str:
    """Return a table with a line per kernel: its registers on each GPU, its stack, its 128-bit and 64-bit accesses.

    And the table of :func:`slot_rows`.
    """
    found = kernels()
    targets = sorted({kernel.target for kernel in found}, key=lambda target: int(target[3:]))
    accesses = "128-bit loads, stores | 64-bit loads, stores"
    lines = [f"| kernel | {' | '.join(targets)} | stack | {accesses} |", "|---" * (4 + len(targets)) + "|"]
    for name in sorted({kernel.name for kernel in found}):
        of_target = {kernel.target: kernel for kernel in found if kernel.name == name}
        registers = " | ".join(str(of_target[target].registers) for target in targets)
        stack = max(kernel.stack for kernel in of_target.values())
        wide = sorted({f"{kernel.wide_loads}, {kernel.wide_stores}" for kernel in of_target.values()})
        half = sorted({f"{kernel.half_loads}, {kernel.half_stores}" for kernel in of_target.values()})
        lines.append(f"| {name} | {registers} | {stack} | {'; '.join(wide)} | {'; '.join(half)} |")
    return "\n".join([*lines, "", f"### {SLOTS}", "", report.markdown(slot_rows())])


if __name__ == "__main__":
    print(markdown())
