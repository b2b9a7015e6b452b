"""One form for expressions that have the same bits for all inputs.

The identities, and no others, hold for every input in IEEE arithmetic that rounds once per operation. A NaN counts as
equal to any other, as its sign and payload depend on the processor.

- ``a + b = b + a``, ``a * b = b * a``, also in a multiply-add; ``a - b = a + (-b)``; ``-(-a) = a``;
- ``(-a) * b = -(a * b)``, ``(-a) / b = -(a / b)``; ``a * 1 = a / 1 = a``; ``reciprocal(a) = 1 / a``;
- operations on constants have the result of that operation;
- ``|a|``, ``sign`` and ``isnan`` by comparisons; ``a > b`` is ``b < a``, ``a != b`` is ``not a == b``;
- a selection by a comparison whose outcome is known is what it selects. Expressions are compared once for each outcome
  of the comparisons in C++;
- float32 to float64 and back changes nothing, nor does it if the square root is taken in between: that is correctly
  rounded, as 53 >= 2 * 24 + 2 bits;
- bits: to flip the sign bit is to negate; 16 bits before 16 zeros are a bfloat16 as float32, and back where they are
  not a NaN; the NaN of bfloat16 is 0x7fc0;
- integers modulo 2**32: ``a + 0``, ``a * 0``, ``a * 1``. The reference keeps them in int64, masked by 2**32 - 1. Where
  integers and floats are converted, they are below 2**31, where int32 and uint32 agree.
"""

from __future__ import annotations

import math
import struct

MASK = 2**32 - 1
_COMMUTATIVE = set("add mul eq iadd imul imulhi xor and or ieq".split())
_WORDS = set("word iadd isub imul imulhi xor and or lshift rshift bits to_integer widen".split())


def rounded(value, precision):
    """Return a Python float rounded to ``float32``, or as it is."""
    if precision == "float32" and math.isfinite(value):
        return struct.unpack("f", struct.pack("f", value))[0]
    return value


_FLOATS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "sqrt": math.sqrt,
    "to_float32": lambda a: rounded(a, "float32"),
    "to_float64": lambda a: a,
}
_INTEGERS = {
    "iadd": lambda a, b: a + b,
    "isub": lambda a, b: a - b,
    "imul": lambda a, b: a * b,
    "imulhi": lambda a, b: a * b >> 32,
    "xor": lambda a, b: a ^ b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "lshift": lambda a, b: a << b,
    "rshift": lambda a, b: a >> b,
}
_COMPARISONS = {
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "ieq": lambda a, b: a == b,
    "ilt": lambda a, b: a < b,
}


class Canonical:
    """Expressions in one form: two are equal if they have the same number.

    ``precision``: of operations on constants. ``outcomes``: of comparisons, by their numbers.
    """

    def __init__(self, precision):
        self.precision = precision
        self.outcomes = {}
        self.nodes = []  # (operation, numbers of the operands, what a constant or an input is)
        self._numbers = {}

    def of(self, op, operands=(), what=""):
        """Return the number of an operation on canonical operands."""
        if op in ("number", "word", "int64", "bool"):
            return self._constant(op, what)
        rewritten = self._folded(op, operands)
        if rewritten is None and op != "input":
            rule = getattr(self, f"_{op}", None)
            rewritten = rule(*operands) if rule else None
        if rewritten is not None:
            return rewritten
        return self._number(op, tuple(sorted(operands)) if op in _COMMUTATIVE else tuple(operands), what)

    def expression(self, node, known=None):
        """Return the number of an expression of :class:`tracing.recorded.Node`."""
        known = {} if known is None else known
        if id(node) not in known:
            operands = [self.expression(operand, known) for operand in node.operands]
            known[id(node)] = self.of(node.op, operands, node.what)
        return known[id(node)]

    def decide(self, comparison, outcome):
        """Assume an outcome; False if it contradicts what has been assumed."""
        op, operands, what = self.nodes[comparison]
        if op == "bool":
            return (what == "True") == outcome
        if op == "not":
            return self.decide(operands[0], not outcome)
        return self.outcomes.setdefault(comparison, outcome) == outcome

    def value(self, number):
        """Return the value of a constant, else None."""
        op, _, what = self.nodes[number]
        return float.fromhex(what) if op == "number" else int(what) if op in ("word", "int64") else None

    def _number(self, op, operands, what=""):
        key = (op, operands, what)
        if key not in self._numbers:
            self._numbers[key] = len(self.nodes)
            self.nodes.append(key)
        return self._numbers[key]

    def _constant(self, op, what):
        if op == "number":
            what = float.fromhex(what).hex()
        if op == "int64" and 0 <= int(what) <= MASK:
            op = "word"
        return self._number(op, (), what)

    def _folded(self, op, operands):
        values = [self.value(operand) for operand in operands]
        if not values or None in values:
            return None
        if op in _COMPARISONS:
            return self.of("bool", what=str(_COMPARISONS[op](*values)))
        if op in _INTEGERS and all(self._is_word(operand) for operand in operands):
            return self._word(_INTEGERS[op](*values) & MASK)
        if op in _FLOATS and not (op == "div" and values[1] == 0):
            return self.of("number", what=rounded(_FLOATS[op](*values), self.precision).hex())
        return None

    def _word(self, value):
        return self.of("word", what=str(value))

    def _op(self, number):
        return self.nodes[number][0]

    def _operands(self, number):
        return self.nodes[number][1]

    def _is_word(self, number):
        op, _, what = self.nodes[number]
        return op in _WORDS or (op == "input" and what.startswith("word"))

    # Floating point.

    def _sub(self, a, b):
        return self.of("add", (a, self.of("neg", (b,))))

    def _neg(self, a):
        return self._operands(a)[0] if self._op(a) == "neg" else None

    def _mul(self, a, b):
        for this, other in ((a, b), (b, a)):
            value = self.value(this)
            if value == 1:
                return other
            if self._op(this) == "neg":
                return self.of("neg", (self.of("mul", (self._operands(this)[0], other)),))
            if value is not None and math.copysign(1, value) < 0:
                return self.of("neg", (self.of("mul", (self.of("neg", (this,)), other)),))
        return None

    def _fma(self, a, b, c):
        return self.of("fma", (b, a, c)) if b < a else None

    def _div(self, a, b):
        if self.value(b) == 1:
            return a
        for k, this in enumerate((a, b)):
            if self._op(this) == "neg":
                positive = self._operands(this)[0]
                return self.of("neg", (self.of("div", (a, positive) if k else (positive, b)),))
        return None

    def _reciprocal(self, a):
        return self.of("div", (self.of("number", what="0x1p0"), a))

    def _abs(self, a):
        zero = self.of("number", what="0x0p0")
        return self.of("select", (self.of("le", (a, zero)), self.of("sub", (zero, a)), a))

    def _sign(self, a):
        one, zero = self.of("number", what="0x1p0"), self.of("number", what="0x0p0")
        negative = self.of("select", (self.of("lt", (a, zero)), self.of("neg", (one,)), zero))
        return self.of("select", (self.of("lt", (zero, a)), one, negative))

    def _to_float32(self, a):
        if self._op(a) == "sqrt" and self._op(self._operands(a)[0]) == "to_float64":
            return self.of("sqrt", self._operands(self._operands(a)[0]))
        return self._operands(a)[0] if self._op(a) == "to_float64" else None

    # Comparisons and selections.

    def _ne(self, a, b):
        return self.of("not", (self.of("eq", (a, b)),))

    def _ine(self, a, b):
        return self.of("not", (self.of("ieq", (a, b)),))

    def _not(self, a):
        if self._op(a) == "bool":
            return self.of("bool", what=str(self.nodes[a][2] != "True"))
        return self._operands(a)[0] if self._op(a) == "not" else None

    def _isnan(self, a):
        return self.of("ne", (a, a))

    def _select(self, condition, a, b):
        if a == b:
            return a
        if self._op(condition) == "not":
            return self.of("select", (self._operands(condition)[0], b, a))
        outcome = self.outcomes.get(condition)
        if self._op(condition) == "bool":
            outcome = self.nodes[condition][2] == "True"
        return None if outcome is None else a if outcome else b

    # Bits.

    def _bits(self, a):
        return self._operands(a)[0] if self._op(a) == "from_bits" else None

    def _from_bits(self, word):
        op, operands, _ = self.nodes[word]
        if op == "bits":
            return operands[0]
        if op == "lshift" and self._op(operands[0]) == "widen" and self.value(operands[1]) == 16:
            return self.of("from_bfloat16", self._operands(operands[0]))
        for bits, sign in (operands, operands[::-1]) if op == "xor" else ():
            if self._op(bits) == "bits" and self._op(sign) == "and" and 2**31 in map(self.value, self._operands(sign)):
                number = self._operands(bits)[0]
                negative = self.of("ine", (sign, self._word(0)))
                return self.of("select", (negative, self.of("neg", (number,)), number))
        return None

    def _to_bfloat16(self, a):
        value = self.value(a)
        if value is not None and math.isnan(value):
            return self.of("narrow", (self._word(0x7FC0),))
        if self._op(a) == "from_bits" and self._op(self._operands(a)[0]) == "and":
            for word, mask in (self._operands(self._operands(a)[0]), self._operands(self._operands(a)[0])[::-1]):
                if self.value(mask) == 0xFFFF0000:
                    return self.of("narrow", (self.of("rshift", (word, self._word(16))),))
        return None

    # Integers.

    def _iadd(self, a, b):
        return a if self.value(b) == 0 else b if self.value(a) == 0 else None

    def _imul(self, a, b):
        for this, other in ((a, b), (b, a)):
            if self.value(this) in (0, 1):
                return other if self.value(this) else this
        return None

    def _and(self, a, b):
        return a if self.value(b) == MASK else b if self.value(a) == MASK else None

    def _wide_xor(self, a, b):
        return self.of("xor", (a, b)) if self._is_word(a) and self._is_word(b) else None

    def _wide_or(self, a, b):
        return self.of("or", (a, b)) if self._is_word(a) and self._is_word(b) else None

    def _wide_rshift(self, a, bits):
        return self.of("rshift", (a, bits)) if self._is_word(a) else None

    def _wide_and(self, a, b):
        if self._is_word(a) and self._is_word(b):
            return self.of("and", (a, b))
        op, operands, _ = self.nodes[a]
        if self.value(b) != MASK or not operands:
            return None
        if op == "wide_rshift" and self.value(operands[1]) == 32 and self._op(operands[0]) == "wide_mul":
            op, operands = "wide_high", self._operands(operands[0])
        narrow = {"wide_add": "iadd", "wide_mul": "imul", "wide_high": "imulhi"}.get(op)
        return self.of(narrow, operands) if narrow and all(map(self._is_word, operands)) else None
