import helpers
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# The native module's fixture only puts its settings back, after the last example.
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("tests", COMMON, max_examples=200, derandomize=True)
settings.register_profile("fuzz", COMMON, max_examples=500, print_blob=True)
settings.load_profile("tests")

# Almost all tensors here are small: waking other threads for them costs more than it saves, most of all on a busy
# machine. Tests of several threads ask for them.
torch.set_num_threads(1)


def pytest_addoption(parser):
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.addoption("--device", default=default, help=f"where tests marked gpu run (default here: {default})")


@pytest.fixture(params=helpers.BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def interpreter():
    """Triton's interpreter works here; it is asked for before Triton is imported, so in processes of their own."""
    triton = pytest.importorskip("triton")
    older, newer = (tuple(map(int, module.__version__.split(".")[:2])) for module in (triton, np))
    if older < (3, 7) and newer >= (2, 4):
        pytest.skip(f"the interpreter of Triton {triton.__version__} fails with NumPy {np.__version__}")


@pytest.fixture
def native():
    """The native module; its settings are put back after the test."""
    from extrap_kernels import _C

    instruction_set, stable = _C.instruction_set(), _C.reads_by_stable_interface()
    yield _C
    _C.select_instruction_set(instruction_set)
    _C.testing.read_by_stable_interface(stable)
