"""What the native core is compiled with: warnings, compilers, the OpenMP runtime."""

import json
import re
import shutil
import sys
import zipfile

import pytest
from packages import ROOT, SMOKE, build_wheel, environment, failed_build, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("compilers")]


def first_commands(checkout):
    """The compiler's command lines, of a build that ended with the first of them."""
    (path,) = checkout.glob("build/*/compile_commands.json")
    commands = [entry["command"] for entry in json.loads(path.read_text())]
    assert any("kernels.cpp" in command for command in commands)
    return commands


def fill_environment(checkout):
    """What make takes for an environment with all dependencies: this one, in which it must not install anything."""
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] || exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for dependencies in (".demo-deps", ".deps", ".ecosystem"):
        (venv / dependencies).touch()


@pytest.fixture
def broken(checkout):
    (checkout / "csrc" / "core" / "macros.h").write_text('#error "stop here"\n')
    return checkout


def test_warnings_are_no_errors_for_users(broken, tmp_path):
    assert "stop here" in failed_build(broken, tmp_path, EXTRAP_CUDA="off")
    assert not any("-Werror" in command for command in first_commands(broken))


def test_warnings_are_errors_for_developers(broken):
    fill_environment(broken)
    assert "stop here" in run("make", "-C", broken, "EXTRAP_CUDA=off", ".venv/.built", ok=False)
    assert all("-Werror" in command for command in first_commands(broken))


def what_make_runs(checkout, target):
    return run("make", "-n", "-C", checkout, "EXTRAP_CUDA=", "GPU=", target)


def test_the_demo_waits_for_nothing_that_only_tests_use(checkout):
    fill_environment(checkout)
    left_out = "EXTRAP_TESTING=OFF EXTRAP_ISAS=native EXTRAP_CUDA=off"
    assert left_out in what_make_runs(checkout, "demo")
    (checkout / ".venv" / ".built").touch()
    assert "setup.py" not in what_make_runs(checkout, "demo")
    tested = what_make_runs(checkout, "test")
    assert "setup.py" in tested and left_out not in tested
    (checkout / ".venv" / ".built-for-tests").touch()
    assert "setup.py" not in what_make_runs(checkout, "test")
    (checkout / "csrc" / "core" / "config.h").touch()
    demo = what_make_runs(checkout, "demo")
    assert "setup.py" in demo and left_out not in demo, "what tests had built must not be deleted"


@pytest.mark.skipif(not shutil.which("clang++"), reason="needs clang++ (Debian and Ubuntu: apt install clang)")
def test_clang_builds_the_same_numerics_on_the_same_threads(sdist, tmp_path):
    build_wheel(sdist, tmp_path, CXX="clang++", EXTRAP_CUDA="off", EXTRAP_TESTING="OFF", EXTRAP_WERROR="ON")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (native,) = (name for name in archive.namelist() if "/_C." in name and name.endswith(".so"))
        archive.extract(native, tmp_path)
    if shutil.which("readelf"):
        dynamic = run("readelf", "-d", tmp_path / native)
        assert re.findall(r"NEEDED.*\[(lib\w*omp\w*)\.", dynamic) == ["libgomp"], dynamic
    python = environment(tmp_path / "venv", wheel)
    run(python, "-c", SMOKE, tmp_path / "venv", cwd=tmp_path)
    parity = ROOT / "tests" / "test_backend_parity.py"
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", parity, cwd=tmp_path)
