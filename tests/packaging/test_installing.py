"""Machines on which the package is installed: what is missing there is said in one error, before anything is copied.

What need not compile does not: a build that gets as far as the compiler ends at a line that is wrong on purpose.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from packages import PIP, assert_clear, build_wheel, environment, failed_build, run, words

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

COMPILED = "the compiler was reached"
OFFLINE = {"PIP_NO_INDEX": 1, "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def unfinished(source):
    """Sources whose build ends with the first file that is compiled."""
    (source / "csrc" / "core" / "macros.h").write_text(f'#error "{COMPILED}"\n')
    return source


@pytest.fixture
def bare(tmp_path):
    """Make an environment with pip and nothing else: no torch."""

    def make(python=sys.executable):
        run(python, "-m", "venv", tmp_path / "bare")
        return tmp_path / "bare" / "bin" / "python"

    return make


def installed(python):
    return run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip() + "/extrap_kernels"


def test_without_compiler_the_error_says_what_to_install(source, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for env in ({"PATH": empty}, {"CXX": "/nowhere/c++", "CC": "/nowhere/cc"}):
        output = failed_build(source, tmp_path, **env)
        assert "no C++ compiler found" in output and "apt install g++" in output and "EXTRAP_NATIVE=off" in output
        assert "Building wheel" not in output, "before pip downloads dependencies and builds"
        assert_clear(output)


def test_without_nvcc_the_cpu_kernels_are_built(unfinished, tmp_path):
    output = failed_build(unfinished, tmp_path, CUDACXX="/nowhere/nvcc")
    assert "CUDA backend: not built (EXTRAP_CUDA=auto" in words(output) and COMPILED in output
    assert "copying " not in output


def test_cuda_on_without_nvcc_says_what_to_install(source, tmp_path):
    output = failed_build(source, tmp_path, EXTRAP_CUDA="on", CUDACXX="/nowhere/nvcc")
    assert "no nvcc was found. Install the CUDA toolkit" in words(output) and "EXTRAP_CUDA=auto" in output
    assert_clear(output)


@pytest.mark.parametrize("name, value", [("EXTRAP_CUDA", "maybe"), ("EXTRAP_NATIVE", "0"), ("EXTRAP_ISAS", "sse")])
def test_wrong_setting_is_named(source, tmp_path, name, value):
    output = failed_build(source, tmp_path, **{name: value})
    assert f"{name} is '{value}'; use " in words(output), output
    assert_clear(output)


def test_without_torch_pip_brings_it_and_an_import_says_that_it_is_missing(source, bare):
    python = bare()
    run(python, *PIP, "install", "--no-deps", source, EXTRAP_NATIVE="off")
    (requires,) = re.findall("^Requires: (.*)$", run(python, *PIP, "show", "extrap-kernels"), re.MULTILINE)
    assert "torch" in requires.split(", ")
    output = run(python, "-c", "import extrap_kernels", ok=False)
    assert output.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"


def test_offline_with_the_build_requirements_at_hand(source, tmp_path):
    offline = {**OFFLINE, "EXTRAP_NATIVE": "off"}
    build_wheel(source, tmp_path, "--no-build-isolation", **offline)
    assert len(list(tmp_path.glob("*.whl"))) == 1
    output = build_wheel(source, tmp_path / "other", ok=False, **offline)
    assert "No matching distribution found for setuptools>=77" in output
    assert_clear(output)


@pytest.mark.parametrize("missing", ["c++", "cmake", "ninja", "pybind11"])
def test_a_missing_build_requirement_is_named(source, bare, tmp_path, missing):
    """Without build isolation pip does not look for them."""
    python, tools = bare(), tmp_path / "tools"
    run(python, *PIP, "install", "setuptools>=77")
    tools.mkdir()
    for name in {"c++", "cmake", "ninja"} - {missing}:
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    if missing != "pybind11":
        (python.parent.parent / "pybind11.py").touch()
    command = (python, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    output = run(*command, ok=False, PATH=tools, PYTHONPATH=python.parent.parent)
    wanted = "no C++ compiler found" if missing == "c++" else f"{missing} not found: run `pip install {missing}`"
    assert wanted in output and "EXTRAP_NATIVE=off" in output
    assert_clear(output)


@pytest.fixture(scope="module")
def old_pip(tmp_path_factory):
    """An environment with the oldest pip that runs on this Python, of those that read pyproject.toml."""
    python = environment(tmp_path_factory.mktemp("old pip"))
    version = "19.3.1" if sys.version_info < (3, 12) else "23.2.1"
    run(python, *PIP, "install", f"pip=={version}")
    assert f"pip {version} " in run(python, *PIP, "--version")
    return python


def test_an_old_pip_installs(old_pip, source):
    run(old_pip, *PIP, "install", "--no-deps", source, EXTRAP_NATIVE="off")
    assert os.path.isfile(installed(old_pip) + "/triton_kernels/__init__.py")


def test_an_old_pip_shows_the_error(old_pip, source):
    output = run(old_pip, *PIP, "install", "--no-deps", source, ok=False, CXX="/nowhere/c++")
    assert "no C++ compiler found" in output
    assert_clear(output)


def as_ordinary_user():
    """What a command begins with so that permissions hold for it, also where root runs the tests."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root needs setpriv (util-linux) to be bound by permissions")
    return "setpriv", "--bounding-set", "-dac_override,-dac_read_search"


def test_an_ordinary_user_installs_for_himself(source, tmp_path):
    base = getattr(sys, "_base_executable", sys.executable)  # a virtual environment has no packages of the user
    home = {"PYTHONUSERBASE": tmp_path / "home", "PIP_BREAK_SYSTEM_PACKAGES": 1, "EXTRAP_NATIVE": "off"}
    if "No module named pip" in subprocess.run([base, "-m", "pip"], capture_output=True, text=True).stderr:
        pytest.skip(f"{base} has no pip")
    run(*as_ordinary_user(), base, *PIP, "install", "--user", "--no-deps", source, **home)
    assert len(list((tmp_path / "home").rglob("extrap_kernels/triton_kernels/__init__.py"))) == 1


def test_a_folder_that_is_not_writable_is_named(source, tmp_path):
    folders = [source, *(path for path in source.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    command = (sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    output = run(*as_ordinary_user(), *command, ok=False, EXTRAP_NATIVE="off")
    for folder in folders:
        folder.chmod(0o755)
    assert f"{source} is not writable" in output and "install from a copy of it" in output
    assert_clear(output)


def python_of(minor):
    """Return Python 3.``minor`` if it is on PATH and runs."""
    found = shutil.which(f"python3.{minor}")
    return found if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0 else None


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_other_pythons(unfinished, bare, tmp_path, which):
    """They install the package, and get as far as the compiler with the headers of theirs."""
    minors = [9] if which == "oldest" else reversed(range(sys.version_info[1] + 1, 20))
    python = next(filter(None, map(python_of, minors)), None)
    if python is None:
        pytest.skip(f"no {'python3.9' if which == 'oldest' else 'newer Python'} on PATH")
    own = bare(python)
    run(own, *PIP, "install", "setuptools>=77", "pybind11", "cmake", "ninja")  # once for the two builds
    run(own, *PIP, "install", "--no-deps", "--no-build-isolation", unfinished, EXTRAP_NATIVE="off")
    run(own, "-W", "error", "-m", "compileall", "-q", "-f", installed(own))
    command = (own, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, unfinished)
    output = run(*command, ok=False, EXTRAP_CUDA="off")
    assert COMPILED in output and "copying " not in output
    (commands,) = unfinished.glob("build/*/compile_commands.json")
    assert run(own, "-c", "import sysconfig; print(sysconfig.get_path('include'))").strip() in commands.read_text()
