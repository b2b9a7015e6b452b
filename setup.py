"""Builds the native core, extrap_kernels._C, by driving CMake and Ninja. The metadata is in pyproject.toml.

Environment variables:
    EXTRAP_NATIVE=off    install the pure-Python package: no compiler needed, the plain-PyTorch backend only
    EXTRAP_CUDA          auto (default) | on | off
    EXTRAP_CUDA_ARCHS    GPU architectures, for example "80;90"
    EXTRAP_WERROR        OFF (default) | ON: compiler warnings are errors, as in development (Makefile)
    EXTRAP_TESTING       OFF (default) | ON: what only tests use, as the CUDA kernels for the CPU (Makefile)
    EXTRAP_ISAS          all (default) | native (the best one of this machine) | portable: the CPU kernels
    EXTRAP_SANITIZE      sanitizers to build with, for example "address,undefined": make sanitize
    CC, CXX, CUDACXX     the compilers, as always
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.dist_info import dist_info
from setuptools.errors import CompileError, PlatformError

ROOT = Path(__file__).resolve().parent
PURE_PYTHON = "set EXTRAP_NATIVE=off for the pure-Python package"
CMAKE_SETTINGS = (
    "EXTRAP_CUDA",
    "EXTRAP_CUDA_ARCHS",
    "EXTRAP_ISAS",
    "EXTRAP_SANITIZE",
    "EXTRAP_TESTING",
    "EXTRAP_WERROR",
)


def native_wanted():
    value = os.environ.get("EXTRAP_NATIVE", "on")
    if value not in ("on", "off"):
        raise PlatformError(f"EXTRAP_NATIVE is {value!r}; use on or off")
    return value == "on"


def find_tool(name):
    """Path of a build tool: from PATH (pip's build isolation puts its own first), else from this environment."""
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        raise PlatformError(f"{name} not found: run `pip install {name}`, or {PURE_PYTHON}")
    return found


def check_tools():
    """Raise an error that names the remedy if something is missing that a build cannot do without."""
    check_compiler()
    for name in ("cmake", "ninja"):
        find_tool(name)
    # pip installs what pyproject.toml requires, but not with --no-build-isolation.
    if importlib.util.find_spec("pybind11") is None:
        raise PlatformError(f"pybind11 not found: run `pip install pybind11`, or {PURE_PYTHON}")


def check_folder():
    if not os.access(ROOT, os.W_OK):
        raise PlatformError(f"{ROOT} is not writable, and the build needs to write there: install from a copy of it")


def check_compiler():
    wanted = [shlex.split(os.environ["CXX"])[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, wanted)):
        raise PlatformError(
            f"no C++ compiler found (looked for {', '.join(wanted)}): install GCC 9 or Clang 14 or newer (Debian and "
            f"Ubuntu: `apt install g++`, Fedora: `dnf install gcc-c++`) or name one by CXX; or {PURE_PYTHON}"
        )


class Metadata(dist_info):
    """What pip asks for first: without a compiler it ends here, and not after torch was downloaded."""

    def run(self):
        check_folder()
        if self.distribution.has_ext_modules():
            check_tools()
        super().run()


class NativeFirst(build):
    """The native core comes first: its errors stand alone, and not behind a line for each file that is copied."""

    sub_commands = sorted(build.sub_commands, key=lambda command: command[0] != "build_ext")


class CMakeBuild(build_ext):
    """Builds in one stable folder per Python ABI, so that a rebuild compiles only what changed."""

    def build_extension(self, ext):
        check_tools()
        import pybind11  # here, since the pure-Python package does without it

        sanitizers = os.environ.get("EXTRAP_SANITIZE", "").replace(",", "-")
        folder = "-".join(filter(None, (sysconfig.get_config_var("SOABI"), sanitizers)))
        cmake, build_dir = find_tool("cmake"), ROOT / "build" / folder
        # Every setting is given anew on each run: what an earlier run left in the cache must not decide.
        settings = [f"-D{n}={os.environ[n]}" if n in os.environ else f"-U{n}" for n in CMAKE_SETTINGS]
        self.run_tool(
            *(cmake, "-S", ROOT, "-B", build_dir, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}"),
            *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *settings),
        )
        self.run_tool(cmake, "--build", build_dir)
        if not sanitizers:
            shutil.copy(build_dir / "compile_commands.json", ROOT / "build")  # where clangd looks
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build_dir / target.name, target)

    def run_tool(self, *command):
        print(shlex.join(map(str, command)), flush=True)
        if subprocess.call(command) != 0:
            raise CompileError(f"the native core was not built, see the messages above; {PURE_PYTHON}")


# The folder triton_kernels/ is installed inside our package: the bare name belongs to another distribution.
TRITON = "extrap_kernels.triton_kernels"
triton_packages = find_packages(include=["triton_kernels", "triton_kernels.*"])

setup(
    packages=[
        *find_packages(include=["extrap_kernels", "extrap_kernels.*"]),
        *(TRITON + name[len("triton_kernels") :] for name in triton_packages),
    ],
    package_dir={TRITON: "triton_kernels"},
    ext_modules=[Extension("extrap_kernels._C", sources=[])] if native_wanted() else [],
    cmdclass={"build": NativeFirst, "build_ext": CMakeBuild, "dist_info": Metadata},
)
