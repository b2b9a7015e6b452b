"""Which cases run with which backend."""

import pytest
from helpers import needs_emulation


def with_backends(cases, quick):
    """Every case with the native kernels, and with the other backends, where all but `quick` are slow."""
    params = []
    for case in cases:
        params.append(pytest.param(case, "cpu", id=f"{case}-cpu"))
        for backend in ("reference", "cuda-emulated"):
            marks = [] if case == quick else [pytest.mark.slow]
            marks += [needs_emulation] if backend == "cuda-emulated" else []
            params.append(pytest.param(case, backend, id=f"{case}-{backend}", marks=marks))
    return params
