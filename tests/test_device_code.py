"""csrc/core compiles as device code, without warnings, where nvcc is."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NVCC = shutil.which("nvcc")


@pytest.mark.skipif(NVCC is None, reason="needs nvcc, of the CUDA toolkit, on PATH")
def test_core_compiles_for_the_device(tmp_path):
    rules = tmp_path / "core" / "rules.h"
    subprocess.run(
        ["cmake", f"-DEXTRAP_RULES_HEADER={rules}", "-P", ROOT / "csrc" / "core" / "rules.cmake"], check=True
    )
    source = ROOT / "tests" / "native" / "core_on_device.cu"
    options = [
        "-std=c++17",
        "-arch=sm_80",
        "-fmad=false",
        "-Werror",
        "all-warnings",
        "-I",
        ROOT / "csrc",
        "-I",
        tmp_path,
    ]
    subprocess.run([NVCC, *options, "-c", source, "-o", tmp_path / "core.o"], check=True)
