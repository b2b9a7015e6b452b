"""Which cases run with which backend."""

import pytest


def with_backends(cases, quick):
    """Every case with the native kernels, and with the reference, where all but `quick` are slow."""
    native = [pytest.param(case, "cpu", id=f"{case}-cpu") for case in cases]
    marks = {case: () if case == quick else pytest.mark.slow for case in cases}
    return native + [pytest.param(case, "reference", id=f"{case}-reference", marks=marks[case]) for case in cases]
