"""Where two writings differ first."""

from __future__ import annotations

from tracing.canonical import Canonical


def difference(native, other, name, precision="float32"):
    """Return a text that shows the first operation in which C++ and another writing differ, or None if none does.

    Args:
        native: paths, see :mod:`tracing.native_writing`.
        other: expressions by the names of those of C++.
        name: of the other writing.
        precision: of operations on constants.
    """
    for outputs, decisions in native:
        canonical = Canonical(precision)
        known = {}
        if all([canonical.decide(canonical.expression(node, known), outcome) for node, outcome in decisions]):
            ours, theirs = (
                {key: canonical.expression(node) for key, node in all_of.items()} for all_of in (outputs, other)
            )
            if ours != theirs:
                return _first_difference(canonical, ours, theirs, name)
    return None


def _in_order(canonical, outputs):
    """Return the operations that the outputs are made of, each after its operands."""
    order = {}

    def visit(number):
        if number not in order:
            for operand in canonical.nodes[number][1]:
                visit(operand)
            order[number] = None

    for key in sorted(outputs):
        visit(outputs[key])
    return [number for number in order if canonical.nodes[number][1]]


def _first_difference(canonical, ours, theirs, name):
    orders = [_in_order(canonical, outputs) for outputs in (ours, theirs)]
    firsts = [next((n for n in order if n not in other), None) for order, other in (orders, orders[::-1])]
    names = {number: f"v{k}" for k, number in enumerate(orders[0])}

    def text(number):
        op, operands, what = canonical.nodes[number]
        if operands:
            return names.get(number, "...")
        value = canonical.value(number)
        return what if value is None else f"{value:#x}" if op == "word" else repr(value)

    def line(number):
        op, operands, _ = canonical.nodes[number]
        return f"{op}({', '.join(map(text, operands))})" if operands else text(number)

    if firsts == [None, None]:
        key = next(key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key))
        place, firsts = f"output {key}", [outputs.get(key) for outputs in (ours, theirs)]
    else:
        place = f"op {next(order.index(first) for order, first in zip(orders, firsts) if first is not None)}"
    lines = ["nothing" if first is None else line(first) for first in firsts]
    operands = {n for first in firsts if first is not None for n in canonical.nodes[first][1]}
    shown = [f"where {text(n)} = {line(n)}" for n in sorted(operands) if canonical.nodes[n][1]]
    width = max(len("C++"), len(name))
    return "\n  ".join([f"{place}:", f"{'C++':{width}} {lines[0]}", f"{name:{width}} {lines[1]}", *shown])
