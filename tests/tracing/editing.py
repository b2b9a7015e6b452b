"""Modules with replaced words: what a mistake in them would be."""

from __future__ import annotations

import importlib.util
import sys
from unittest import mock


def edited(name, edits=()):
    """Return a new module from the source of ``name``, of which each first text in ``edits`` is replaced by the second.

    It is in no list of modules, and nothing that has been imported changes.
    """
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    source = spec.loader.get_source(name)
    for old, new in edits:
        assert old in source, f"{name} has no {old!r}"
        source = source.replace(old, new)
    with mock.patch.dict(sys.modules, {name: module}):  # where annotations are looked up
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    return module
