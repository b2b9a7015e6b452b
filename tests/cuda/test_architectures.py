"""Which of EXTRAP_CUDA_ARCHS a build is for: those that its nvcc knows."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

CMAKE = shutil.which("cmake") or shutil.which("cmake", path=sysconfig.get_path("scripts"))
ROOT = Path(__file__).parents[2]
# As CMakeLists.txt includes it.
SCRIPT = f"""
include({ROOT / "csrc" / "cuda" / "architectures.cmake"})
message(STATUS "built for ${{EXTRAP_CUDA_ARCHS}}")
"""

pytestmark = pytest.mark.skipif(CMAKE is None, reason="needs cmake")


@pytest.fixture
def configure(tmp_path):
    """What is said with an nvcc that knows the architectures of CUDA 12.1, or that does not list them."""
    nvcc, script = tmp_path / "nvcc", tmp_path / "script.cmake"
    script.write_text(SCRIPT)

    def run(archs, known="compute_80 compute_86 compute_89 compute_90"):
        answer = f"printf '%s\\n' {known}" if known else "exit 1"
        nvcc.write_text(f'#!/bin/sh\n[ "$*" = --list-gpu-arch ] || exit 1\n{answer}\n')
        nvcc.chmod(0o755)
        command = [CMAKE, f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DEXTRAP_CUDA_ARCHS={archs}", "-P", script]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, " ".join(done.stdout.split())

    return run


def test_what_nvcc_does_not_know_is_left_out_and_named(configure):
    status, said = configure("80;86;89;90;100;120")
    assert status == 0 and said.endswith("built for 80;86;89;90")
    assert "without 100;120, which" in said


@pytest.mark.parametrize("archs, known", [("80;90", "compute_80 compute_90"), ("80;120", None)])
def test_all_are_built_that_nvcc_knows_or_does_not_list(configure, archs, known):
    assert configure(archs, known) == (0, f"-- built for {archs}")


@pytest.mark.parametrize(
    "archs, message",
    [
        ("100;120", "knows none of EXTRAP_CUDA_ARCHS=100;120. Install a newer CUDA toolkit, or name some of 80;86"),
        ("9.0", "EXTRAP_CUDA_ARCHS is '9.0'; use compute capabilities without their points"),
    ],
)
def test_what_cannot_be_built_ends_the_build(configure, archs, message):
    status, said = configure(archs)
    assert status != 0 and message in said
