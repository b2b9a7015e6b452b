"""Kernels for one instruction set share no code with anything else in the library."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

BUILD = Path(__file__).parent.parent / "build" / sysconfig.get_config_var("SOABI")


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm (binutils)")
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_shared_symbols_name_the_instruction_set(isa):
    """The linker keeps one copy of a weak symbol: it must not be one with instructions that a processor lacks."""
    library = BUILD / f"libkernels_{isa}.a"
    if not library.exists():
        pytest.skip(f"{library.name} was not built here")
    symbols = subprocess.run(["nm", "-C", library], check=True, capture_output=True, text=True).stdout.splitlines()
    weak = [line for line in symbols if line[17:18] in ("W", "V", "u")]
    assert weak
    assert [line for line in weak if f"extrap::{isa}::" not in line] == []
