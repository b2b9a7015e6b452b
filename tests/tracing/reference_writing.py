"""The reference: expressions by name, from its own functions on recorded numbers."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from types import SimpleNamespace
from unittest import mock

import torch

from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.reference import noise, norms, philox, random_bits, root
from extrap_kernels.reference import step as reference_step
from extrap_kernels.state.float24 import SPLIT
from extrap_kernels.state.formats import STATE_FORMATS
from tracing.case import INDEX, NORM, NORM_X, RMS
from tracing.recorded import Recorded, WordPair


def step(case, rule=None):
    """Trace :func:`extrap_kernels.reference.step.step_parameter`, and what norms are taken of.

    ``rule``: a module in place of the rule's own.
    """
    rule = rule or importlib.import_module(f"extrap_kernels.reference.rules.{case.spec.name}")
    normed = {}

    def norm_square(groups, total):
        """Stands for the sum over a tensor: of x, or of what else is normed."""
        number = total.node.operands[0]
        number = number.operands[0] if number.op == "to_float64" else number
        is_base = number is base.node
        normed["normed_base" if is_base else "normed"] = number
        return NORM_X**2 if is_base else NORM**2

    layout = case.layout
    param, state, gradient, local = inputs = _inputs(case, layout)
    base, buffers = state["base"], {b.name: state[b.name] for b in case.buffers}
    with ExitStack() as patches:
        for module, name, stand_in in (
            (norms, "_over", norm_square),
            (root, "square_root", lambda v: v.double().sqrt().to(v.dtype)),  # by its result: rounded to nearest
            (reference_step, "rms", lambda *_, **__: Recorded.constant(RMS, torch.float64)),
            (reference_step, "noise", lambda *_, **__: Recorded.input("noise", torch.float32)),
        ):
            patches.enter_context(mock.patch.object(module, name, stand_in))
        measured = {}
        if case.is_measured:
            direction = _call(reference_step.direction_of, rule, layout, case.launch, _inputs(case, layout))
            measured["measured"] = direction.node
        _call(reference_step.step_parameter, rule, layout, case.launch, inputs)
    outputs = {"param": param, "base": base}
    outputs.update({f"buffer{k}": buffer for k, buffer in enumerate(buffers.values())})
    return {**{name: value.node for name, value in outputs.items()}, **normed, **measured}


def _inputs(case, layout):
    """Return the parameter, its state, the gradient and the local one."""
    base = Recorded.input("base", case.arithmetic)
    param = Recorded.input("param", case.param) if layout.has_base else base
    buffers = {b.name: Recorded.input(f"buffer{k}", case.arithmetic) for k, b in enumerate(case.buffers)}
    state = {"step": torch.tensor(case.step - 1.0), "base": base, **buffers}
    state["inner_lr"] = torch.tensor(case.inner_lr, dtype=case.arithmetic)
    local = Recorded.input("local", case.gradient_dtype) if case.has_local else None
    return param, state, Recorded.input("gradient", case.gradient_dtype), local


def _call(function, rule, layout, launch, inputs):
    param, *others = inputs
    return function(rule, layout, launch, ParamEntry(param, INDEX, "the parameter"), *others)


def _words(count):
    return tuple([Recorded.input(f"word{k}", torch.int64) for k in range(count)])


def _named(name, values):
    return {f"{name}{k}": value.node for k, value in enumerate(values)}


# torch for philox.py: recorded words are tensors already, and of one shape.
_TORCH = SimpleNamespace(
    int64=torch.int64,
    device=torch.device,
    as_tensor=lambda word, **_: word if isinstance(word, Recorded) else Recorded.constant(word, torch.int64),
    broadcast_tensors=lambda *words: words,
)


def words(key, module=philox):
    """Trace Philox; ``module``: in place of its own."""
    with mock.patch.object(module, "torch", _TORCH):
        return _named("word", module.philox4x32(_words(4), key))


def noise_of(kind):
    """Trace the noise of two elements that share a word."""
    stand_ins = {"_fused": Recorded.fma, "square_root": Recorded.sqrt}  # by their results: rounded once
    with mock.patch.multiple(noise, **stand_ins):
        return _named("noise", getattr(noise, f"_{kind}")(*_words(1)))


def bits(key, count):
    """Trace the bits of the position that has two words as halves."""
    with mock.patch.object(philox, "torch", _TORCH):
        word = random_bits.random_words(WordPair(*_words(2)), key=key, parameter=INDEX, step=count)
    return {"word0": word.node}


def rounded():
    """Trace the rounding of the base iterate to 24 bits."""
    return {"value": SPLIT.rounded(Recorded.input("value", torch.float32), _words(1)[0]).node}


def stochastic():
    """Trace the format of unsigned buffers in bfloat16."""
    value, word = Recorded.input("value", torch.float32), _words(1)[0]
    encode = STATE_FORMATS[torch.bfloat16].unsigned.encode
    return {"half": encode(value, (word >> 16).to(torch.int32)).node}
