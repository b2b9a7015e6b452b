"""What stands in two places is the same there: lists of Python and of the native core, the version."""

import re
from importlib import metadata
from pathlib import Path

import extrap_kernels
from extrap_kernels import _C, options, rules, scalars
from extrap_kernels.launch import PHASES


def test_scalars_of_a_launch():
    assert _C.scalars() == [(scalar.name, scalar.dtype) for scalar in scalars.SCALARS]


def test_rows_come_back_as_they_were_packed():
    values = {scalar.name: k + 1 for k, scalar in enumerate(scalars.SCALARS)}
    assert scalars.unpack(scalars.pack(values)) == values
    defaults = {scalar.name: scalar.default for scalar in scalars.SCALARS}
    assert scalars.unpack(scalars.pack({})) == defaults
    assert len(scalars.pack({})) == 8 * len(scalars.SCALARS)


def test_names_of_options():
    expected = {
        name: ["none" if choice is None else choice for choice in codes] for name, codes in options.CODES.items()
    }
    assert _C.choices() == {"phase": list(PHASES), **expected}


def test_rules():
    expected = [
        (spec.name, [buffer.signed for buffer in buffers], spec.norm, spec.own_decay)
        for spec in rules.every_rule().values()
        for buffers in spec.variants()
    ]
    assert sorted(_C.rules(), key=repr) == sorted(expected, key=repr)


def test_version():
    """Of the installed package, and of what cites it."""
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.M) == [extrap_kernels.__version__]
    assert metadata.version("extrap-kernels") == extrap_kernels.__version__
