"""What the tests in this folder install, each built once."""

import shutil
import sys

import pytest
from packages import NOT_SOURCE, ROOT, build_wheel, run


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    copy = shutil.copytree(ROOT, folder / "copy", ignore=NOT_SOURCE)
    run(sys.executable, "-c", f"import setuptools.build_meta as b; b.build_sdist({str(folder)!r})", cwd=copy)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture
def checkout(tmp_path):
    """All that a clone has, which is more than the sdist."""
    return shutil.copytree(ROOT, tmp_path / "checkout", ignore=NOT_SOURCE)


@pytest.fixture
def source(sdist, tmp_path):
    shutil.unpack_archive(sdist, tmp_path)
    return tmp_path / sdist.name[: -len(".tar.gz")]


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # For one GPU and one instruction set: the build in place has all of them, and takes as long again for each.
    build_wheel(sdist, folder, EXTRAP_CUDA_ARCHS="90", EXTRAP_ISAS="native")
    (path,) = folder.glob("*.whl")
    return path
