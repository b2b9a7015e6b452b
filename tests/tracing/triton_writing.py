"""Triton: expressions by name, from the kernels' own functions on recorded numbers."""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from extrap_kernels import triton_kernels
from extrap_kernels.scalars import SCALARS
from tracing import triton_stub
from tracing.case import INDEX, NORM, NORM_X, RMS
from tracing.editing import edited
from tracing.recorded import Recorded, WordPair
from tracing.triton_stub import Pointer

_PREFIX = f"{triton_kernels.__name__}."
_BLOCK = 32


def _integers(*values):
    return Pointer([v if isinstance(v, Pointer) else Recorded.constant(v, torch.int64) for v in values])


class TritonWriting:
    """The modules of the kernels, imported anew with the stub in Triton's place.

    ``edits``: pairs of an old and a new text by the name of a module, such as ``rules.adam``.
    """

    def __init__(self, edits=()):
        self._modules = dict(triton_stub.MODULES)
        self._known = {}
        with self._imported():
            for name, changes in dict(edits).items():
                sys.modules[_PREFIX + name] = edited(_PREFIX + name, changes)
            self.variants = importlib.import_module(f"{_PREFIX}variants")
            self.philox = importlib.import_module(f"{_PREFIX}kernels.philox")
            self.random_bits = importlib.import_module(f"{_PREFIX}kernels.random_bits")
            self.distributions = importlib.import_module(f"{_PREFIX}kernels.distributions")
            self.formats = importlib.import_module(f"{_PREFIX}kernels.formats")
            self.table = importlib.import_module(f"{_PREFIX}kernels.table")
            self.scalars = importlib.import_module(f"{_PREFIX}kernels.scalars")

    @contextmanager
    def _imported(self) -> Iterator[None]:
        """Within, ``sys.modules`` has these modules, and what is imported stays with this object."""
        with mock.patch.dict(sys.modules), mock.patch.dict(vars(triton_kernels)):
            for name in [name for name in sys.modules if name.startswith(_PREFIX)]:
                del sys.modules[name]
            sys.modules.update(self._modules)
            try:
                yield
            finally:
                self._modules.update({n: module for n, module in sys.modules.items() if n.startswith(_PREFIX)})

    def step(self, case):
        """Trace one program of ``step_kernel``, and of a rule with norms also one that sums."""
        noise = case.launch.noise
        formats = self.variants.Formats.of(*[str(d).split(".")[-1] for d in (case.param, case.gradient_dtype)])
        rule = self.variants.Rule(case.spec, tuple(case.buffers))
        constants = self._constants(self.variants.Step(rule, formats, case.phase, noise))
        if noise is not None:
            n = Recorded.input("noise", torch.float32)
            constants["NOISE"] = lambda word: (n, n)
        memory = {
            "y": Recorded.input("param", case.param),
            "base": Recorded.input("base", case.arithmetic),
            "gradient": Recorded.input("gradient", case.gradient_dtype),
            "local": Recorded.input("local", case.gradient_dtype),
            "step": Recorded.constant(case.step - 1, torch.float32),
            "inner_lr": Recorded.constant(case.inner_lr, case.arithmetic),
        }
        at = {name: Pointer([value]) for name, value in memory.items()}
        buffers = [Pointer([Recorded.input(f"buffer{k}", case.arithmetic)]) for k in range(len(case.buffers))]
        if not case.has_local:
            at["local"] = 0
        if not case.layout.recovers_base:
            at["inner_lr"] = 0
        if not case.layout.has_base:
            at["y"] = at["base"]
        row = self.table.TensorRow(numel=1, chunks=1, base_low=0, aligned=0, **at)
        # Of the addresses of exponents, which are not there, only that many must be found.
        tensors = _integers(*row[: self.table.BUFFER_COLUMN], *buffers, *[0] * self.table.TENSOR_COLUMNS)
        scalars = self._scalars(case.launch.row)
        normed = {}
        if case.spec.norm is not None and case.launch.layer_adaptation:
            normed = self._normed(rule, formats, scalars, tensors)
        if case.is_measured:
            variant = self.variants.DirectionSquares.of(rule, formats, case.group["extrapolation"])
            normed["measured"] = self._squared(variant, self.variants.direction_squares, scalars, tensors, 1)[0]
        norms = [Recorded.constant(norm**2, torch.float64) for norm in (NORM_X, NORM)]
        self.variants.step_kernel(
            scalars,
            tensors,
            _integers(*self.table.Chunk(tensor=0, part=0)),
            _integers(0),
            _integers(*self.table.NoiseRow(index=INDEX, first=0, row_stride=1, rows=1, offset=0, extent=1, stride=1)),
            Pointer([Recorded.constant(RMS, torch.float64)]),
            Pointer(norms),
            1,
            **constants,
            BLOCK=_BLOCK,
        )
        stored = {"param": at["y"], "base": at["base"], **{f"buffer{k}": p for k, p in enumerate(buffers)}}
        return {**{name: pointer.memory[0].node for name, pointer in stored.items()}, **normed}

    def _normed(self, rule, formats, scalars, tensors):
        """Return what ``trust_norms`` squares in its sums, which begin with 0."""
        variant = self.variants.TrustNorms(rule, formats)
        return dict(
            zip(("normed_base", "normed"), self._squared(variant, self.variants.trust_norms, scalars, tensors, 2))
        )

    def _squared(self, variant, kernel, scalars, tensors, results):
        """Return the numbers that the one program of a kernel squares."""
        piece = dict(tensor=0, row=0, row_stride=1, rows=1, begin=0, end=1, total=0, first=0, pieces=1)
        pieces = _integers(*self.table.Piece(**piece))
        partial, sums = Pointer([None] * results), Pointer([Recorded.constant(0.0, torch.float64)] * results)
        kernel(scalars, tensors, pieces, partial, _integers(0), sums, **self._constants(variant), BLOCK=_BLOCK)
        numbers = [total.node.operands[1].operands[0] for total in partial.memory]
        return [number.operands[0] if number.op == "to_float64" else number for number in numbers]

    def _constants(self, variant):
        """Return the compile-time arguments of a kernel."""
        if variant not in self._known:
            with self._imported():
                self._known[variant] = variant.constants()
        return dict(self._known[variant])

    def words(self, key):
        """Trace Philox."""
        halves = [Recorded.constant(key >> shift & 0xFFFFFFFF, torch.uint32) for shift in (0, 32)]
        return self._named("word", self.philox.philox4x32(*self._words(), *halves))

    def noise(self, kind):
        """Trace the noise of two elements that share a word."""
        pair = getattr(self.distributions, f"{kind}_pair")
        return self._named("noise", pair(self._words()[0]))

    def bits(self, key, count):
        """Trace the bits of the position that has two words as halves, in a step of the parameter ``INDEX``."""
        numbers = [Recorded.constant(value, torch.int64) for value in (key, INDEX, count)]
        position = WordPair(*self._words()[:2])
        return self._named("word", [self.random_bits.random_bits(*self.random_bits.random_key(*numbers), position)])

    def rounded(self):
        """Trace the rounding of the base iterate to 24 bits."""
        value = self.formats.split_rounded(Recorded.input("value", torch.float32), self._words()[0])
        return {"value": value.node}

    def split(self):
        """Trace how a number in 24 bits, whose pattern is a word, becomes an upper half and a low byte."""
        value = self._words()[0].view(torch.float32)
        return self._named("word", [self.formats.high_half(value), self.formats.low_byte(value)])

    def joined(self):
        """Trace the way back."""
        return {"value": self.formats.joined(*self._words()[:2]).node}

    def _scalars(self, row):
        slots = struct.unpack(f"{len(SCALARS)}q", row)
        return _integers(*slots, *[0] * (self.scalars.SLOTS - len(slots)))

    def _words(self):
        return [Recorded.input(f"word{k}", torch.uint32) for k in range(4)]

    def _named(self, name, values):
        return {f"{name}{k}": value.node for k, value in enumerate(values)}
