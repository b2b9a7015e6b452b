"""C++: a list of paths, each of them expressions by name, and pairs of a comparison and its outcome."""

from __future__ import annotations

from extrap_kernels import _C
from tracing.case import INDEX, NORM, NORM_X, RMS
from tracing.recorded import Node


def _paths(recorded):
    for operations, outputs, decisions in recorded:
        nodes = []
        for op, operands, what in operations:
            nodes.append(Node(op, tuple([nodes[k] for k in operands]), what))
        yield {name: nodes[place] for name, place in outputs.items()}, [(nodes[k], truth) for k, truth in decisions]


def step(case):
    """Trace a step."""
    recorded = _C.testing.trace_step(
        case.launch.row,
        rule=case.spec.name,
        buffers=len(case.buffers),
        param=str(case.param).split(".")[-1],
        gradient=str(case.gradient_dtype).split(".")[-1],
        step=case.step,
        norm_x=NORM_X,
        norm=NORM,
        rms=RMS,
        has_local=case.has_local,
        recovers=case.layout.recovers_base,
        inner_lr=case.inner_lr,
    )
    return list(_paths(recorded))


def words(what, row, count=1):
    """Trace what is made of random words, see ``csrc/testing/trace.h``; ``count``: of steps."""
    return list(_paths(_C.testing.trace_words(what, row, INDEX, count)))
