"""Which cases run with which backend."""

import pytest


def with_backends(cases, quick):
    """Every case with the native kernels, and with the reference, where all but `quick` are slow."""
    for case in cases:
        yield pytest.param(case, "cpu", id=f"{case}-cpu")
        yield pytest.param(case, "reference", id=f"{case}-reference", marks=() if case == quick else pytest.mark.slow)
