from pathlib import Path

import pytest
from processes import Processes


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """One process of pytest-xdist runs all tests of this folder, and starts the process groups once."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("distributed"))


@pytest.fixture(params=("reference", "cpu"))
def backend(request):
    return request.param


class Pools:
    """Process groups by size, started where a test first asks for one and again where one has failed."""

    def __init__(self, folder):
        self.folder, self.pools, self.started = folder, {}, 0

    def __call__(self, count):
        pool = self.pools.get(count)
        if pool is None or not all(process.is_alive() for process in pool.processes):
            self.started += 1
            pool = self.pools[count] = Processes(count, self.folder / f"store{self.started}")
        return pool

    def stop(self):
        for pool in self.pools.values():
            pool.stop()


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """`processes(count).run(function, ...)` runs a function in that many gloo processes."""
    pools = Pools(tmp_path_factory.mktemp("gloo"))
    yield pools
    pools.stop()
