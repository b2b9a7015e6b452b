"""``python -m extrap_kernels memory``: the bytes that training takes with each optimizer, ``state_dtype`` and number of
shards, before a byte of it is allocated.

State is prepared on the meta device by the code that prepares it for a step, so that the table cannot differ from it.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from extrap_kernels import command_line, selftest
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.options import CODES
from extrap_kernels.state.blocks import BLOCK
from extrap_kernels.state.formats import STATE_FORMATS
from extrap_kernels.state.layout import State, StateLayout, arithmetic_dtype

PARAM_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in selftest.DTYPES if dtype.is_floating_point}
DEFAULT_OPTIMIZERS = ("ExtrapSGD", "ExtrapAdamW")
ASSUMPTION = "assumed: one dtype, and matrices that blocks of 16 numbers divide, so that all moments may have 8 bits"
IN_ADDITION = (
    "In addition: eval() keeps one copy of the parameters where there is a base iterate; local gradients of the DDP "
    "hook are one more copy of the gradients."
)
_SAFETENSORS = {"F32": "float32", "F64": "float64", "BF16": "bfloat16", "F16": "float16"}
_PERTURBATIONS: dict[str, dict[str, Any]] = {
    **{name or "none": {"extrapolation": name, "noise": None} for name in CODES["extrapolation"]},
    "noise": {"extrapolation": None, "noise": "gaussian"},
}


@dataclass(frozen=True)
class Row:
    """The bytes on one rank, of several, the one that has the most.

    Attributes:
        optimizer: its name, and the option that gives it a buffer.
        state_dtype: as the option of that name; for others, what they store.
        extrapolation: all values of the option, and noise, that take these bytes; ``"any"``: every one.
            ``"not there"``: it has none.
        parameters: bytes of the parameters.
        gradients: bytes of the gradients of those that are trained, in their dtype.
        state: bytes of the optimizer's state.
    """

    optimizer: str
    state_dtype: str
    extrapolation: str
    parameters: int
    gradients: int
    state: int

    @property
    def total(self) -> int:
        """The sum of them."""
        return self.parameters + self.gradients + self.state


class Model:
    """Parameters by shape, strides and dtype, as tensors on the meta device.

    Args:
        params: the parameters; what is not to be trained has ``requires_grad=False``.
        dtype: that they are converted to, where they are of floating point (default: None, as they are).
    """

    def __init__(self, params: Iterable[Tensor], dtype: Optional[torch.dtype] = None) -> None:
        kinds: Counter[tuple[Any, ...]] = Counter()
        for p in params:
            kept = p.dtype if dtype is None or not p.is_floating_point() else dtype
            kinds[tuple(p.shape), p.stride(), kept, p.requires_grad] += 1
        self.params = [
            (torch.empty_strided(shape, stride, dtype=kept, device="meta", requires_grad=trained), count)
            for (shape, stride, kept, trained), count in kinds.items()
        ]

    @property
    def trained(self) -> list[tuple[Tensor, int]]:
        """One parameter of each kind that is trained, and how many there are."""
        return [(param, count) for param, count in self.params if param.requires_grad]


def of_count(numel: int, dtype: torch.dtype) -> Model:
    """Return a model of ``numel`` numbers under :data:`ASSUMPTION`; what is left of the division is a vector."""
    shapes = [(numel // BLOCK, BLOCK), (numel % BLOCK,)]
    return Model(torch.empty(s, dtype=dtype, device="meta", requires_grad=True) for s in shapes if math.prod(s))


def of_factory(name: str, dtype: Optional[torch.dtype]) -> Model:
    """Return the model that the function ``package.module:function`` builds, called on the meta device.

    Raises:
        ValueError: there is no such function, or it returns no ``torch.nn.Module`` or one whose shapes are unknown.
    """
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--module {name}: {error}; name a function as package.module:function") from error
    with torch.device("meta"):
        module = factory()
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"--module {name} returned a {type(module).__name__}; it must return a torch.nn.Module")
    params = list(module.parameters())
    if any(torch.nn.parameter.is_lazy(p) for p in params):
        raise ValueError(f"--module {name} has lazy parameters, which have no shape yet; give its layers their sizes")
    return Model(params, dtype)


def of_checkpoint(path: Path, dtype: Optional[torch.dtype]) -> Model:
    """Return a model with the tensors of floating point in a file; buffers such as running means count as parameters.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote of a model's state dict. Tensors are not read.
        dtype: as in :class:`Model`.

    Raises:
        ValueError: the file holds something else.
    """
    tensors = _in_safetensors(path) if path.suffix == ".safetensors" else _in_pickle(path)
    return Model((t.detach().requires_grad_() for t in tensors if t.is_floating_point()), dtype)


def _in_safetensors(path: Path) -> Iterator[Tensor]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"--checkpoint {path}: it is no file of safetensors")
        header = json.loads(file.read(size))
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"][0] not in "IUB":
            if entry["dtype"] not in _SAFETENSORS:
                raise ValueError(f"--checkpoint {path}: {name!r} is {entry['dtype']}; known are {list(_SAFETENSORS)}")
            yield torch.empty(entry["shape"], dtype=PARAM_DTYPES[_SAFETENSORS[entry["dtype"]]], device="meta")


def _in_pickle(path: Path) -> Iterator[Tensor]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what damaged pickles raise is not documented
        raise ValueError(f"--checkpoint {path}: torch.load(weights_only=True, mmap=True) says: {error}") from error
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        found = list(saved)[:8] if isinstance(saved, Mapping) else type(saved).__name__
        raise ValueError(f"--checkpoint {path} holds {found}; save model.state_dict() alone")
    # Tied weights are saved under each of their names.
    yield from {(t.data_ptr(), t.shape, t.stride()): t for t in saved.values()}.values()


def rows(model: Model, optimizers: Sequence[str], shards: int) -> list[Row]:
    """Return the bytes of every state_dtype of the optimizers, and of what else there is for their rules.

    Args:
        model: whose parameters are trained.
        optimizers: names of classes of the package.
        shards: parts that each tensor is cut into along dim 0, as FSDP2 does; rank 0 has as much as any.

    Raises:
        ValueError: an unknown name; or a number of shards below 1.
    """
    known = selftest.optimizers().items()
    names = list(dict.fromkeys(_name(optimizer_type) for _, (optimizer_type, _) in known))
    unknown = [name for name in optimizers if name not in names]
    if unknown:
        raise ValueError(f"Invalid optimizer value: {unknown[0]!r}; choose from {names}")
    if shards < 1:
        raise ValueError(f"Invalid shards value: {shards}; it must be at least 1")
    found: list[Row] = []
    for title, (optimizer_type, own) in known:
        if _name(optimizer_type) in optimizers:
            found += [*_ours(title, functools.partial(optimizer_type, **own), model, shards)]
            found += [*_others(optimizer_type, own, model, shards)]
    return found


def _name(optimizer_type: Any) -> str:
    name: str = optimizer_type.__name__
    return name


def _ours(title: str, build: Callable[..., ExtrapOptimizer], model: Model, shards: int) -> Iterator[Row]:
    single = all(arithmetic_dtype(param.dtype) == torch.float32 for param, _ in model.trained)
    for state_dtype in STATE_FORMATS if single else [torch.float32]:
        by_bytes: dict[int, list[str]] = {}
        for name, perturbation in _PERTURBATIONS.items():
            optimizer = build([torch.empty(0)], state_dtype=state_dtype, **perturbation)
            by_bytes.setdefault(_state_bytes(optimizer, model, shards), []).append(name)
        for state, names in by_bytes.items():
            yield _row(title, str(state_dtype).removeprefix("torch."), _which(names), model, shards, state)


def _which(names: Sequence[str]) -> str:
    left_out = [name for name in _PERTURBATIONS if name not in names]
    return "any" if not left_out else "any but none" if left_out == ["none"] else ", ".join(names)


def _state_bytes(optimizer: ExtrapOptimizer, model: Model, shards: int) -> int:
    total, (group,) = 0, optimizer.param_groups
    for param, count in model.trained:
        state: State = {}
        layout = StateLayout.of_param(optimizer.rule.SPEC, group, param)
        layout.prepare(state, _first_shard(param, shards), None)
        total += count * _nbytes(state.values())
    return total


def _others(optimizer_type: Any, own: Mapping[str, Any], model: Model, shards: int) -> Iterator[Row]:
    """Yield what torch.optim and FlashOptim take for the same rule, if they have it and it has buffers."""
    name = _name(optimizer_type).removeprefix("Extrap")
    torch_type = getattr(torch.optim, name, None)
    kept = [b.option for b in optimizer_type.rule.SPEC.buffers if b.option is None or b.option in own]
    if torch_type is None or not kept:
        return
    options = {option: own[option] for option in kept if option is not None}
    state = sum(count * _torch_state(torch_type, options, param, shards) for param, count in model.trained)
    yield _row(", ".join([f"torch.optim.{name}", *options]), "as parameters", "not there", model, shards, state)
    if all(param.dtype in (torch.bfloat16, torch.float16) for param, _ in model.trained):
        # As published, version 0.1.4: 8 bits a number and a float16 for each 32, and 8 bits more of each weight.
        numel = sum(count * _first_shard(param, shards).numel() for param, count in model.trained)
        state = math.ceil(numel * (len(kept) * (1 + 2 / 32) + 1))
        yield _row(
            ", ".join([f"FlashOptim {name}", *options]), "8 bits, as published", "not there", model, shards, state
        )


def _torch_state(optimizer_type: Callable[..., Any], options: Mapping[Any, Any], param: Tensor, shards: int) -> int:
    local = _first_shard(param, shards).requires_grad_()
    local.grad = torch.empty_like(local)
    optimizer = optimizer_type([local], **options, foreach=False)
    optimizer.step()
    return _nbytes(optimizer.state[local].values())


def _row(optimizer: str, state_dtype: str, extrapolation: str, model: Model, shards: int, state: int) -> Row:
    parameters, gradients = (
        sum(count * _nbytes([_first_shard(param, shards)]) for param, count in params)
        for params in (model.params, model.trained)
    )
    return Row(optimizer, state_dtype, extrapolation, parameters, gradients, state)


def _first_shard(param: Tensor, shards: int) -> Tensor:
    return param.detach()[: math.ceil(param.shape[0] / shards)] if param.dim() else param.detach()


def _nbytes(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def report(model: Model, optimizers: Sequence[str], shards: int, *, as_json: bool, assumption: str = "") -> None:
    """Print the rows: a table with one unit for all, or JSON with bytes.

    Raises:
        ValueError: as in :func:`rows`; or the model has no parameter that is trained.
    """
    numel = sum(count * param.numel() for param, count in model.trained)
    if numel == 0:
        raise ValueError("there is no parameter to train")
    found = rows(model, optimizers, shards)
    if as_json:
        print(
            json.dumps(
                {"numbers": numel, "shards": shards, "rows": [{**asdict(row), "total": row.total} for row in found]},
                indent=2,
            )
        )
        return
    power, unit = next((p, u) for p, u in ((30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")) if found[0].total >> p)
    print(f"{numel:,} numbers to train, {unit} on each of {shards} rank{'s' * (shards > 1)}")
    if assumption:
        print(assumption)
    heads = ("optimizer", "state_dtype", "extrapolation", "parameters", "gradients", "state", "sum")
    cells = (
        (r.optimizer, r.state_dtype, r.extrapolation)
        + tuple(f"{n / 2**power:,.2f}" for n in (r.parameters, r.gradients, r.state, r.total))
        for r in found
    )
    command_line.show(heads, cells, numbers=heads[3:])
    print(IN_ADDITION)
