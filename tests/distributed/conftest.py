import pytest
from processes import Processes


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
