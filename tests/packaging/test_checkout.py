"""Python started in a checkout, whose folder of sources hides the package that is installed."""

import re

import pytest
from packages import environment, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

FILES = """
import sys
import extrap_kernels
from extrap_kernels import ExtrapSGD, _C, triton_kernels
from extrap_kernels.reference import philox
assert sys.modules["extrap_kernels"] is extrap_kernels
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "extrap_kernels":
        print(module.__file__)
"""


def test_the_installed_copy_is_used(wheel, checkout, tmp_path):
    python = environment(tmp_path / "venv", wheel)
    files = run(python, "-c", FILES, cwd=checkout).split()
    assert len(files) > 10 and all(str(tmp_path / "venv") in file for file in files), files
    assert re.search(r"cpu +available", run(python, "-m", "extrap_kernels", "info", cwd=checkout))
    assert "usage: " in run(python, "-m", "bench", "--help", cwd=checkout)


def test_sources_edited_after_the_installation_are_not_mixed_with_it(wheel, checkout, tmp_path):
    package = checkout / "extrap_kernels"
    with open(package / "__init__.py", "a") as init:
        init.write('__version__ = "edited"\n')
    (package / "sgd.py").write_text("raise AssertionError")
    (package / "reference" / "philox.py").unlink()
    (checkout / "triton_kernels" / "__init__.py").write_text("raise AssertionError")
    python = environment(tmp_path / "venv", wheel)
    files = run(python, "-c", FILES, cwd=checkout).split()
    assert all(str(tmp_path / "venv") in file for file in files), files
    assert "edited" not in run(python, "-c", "import extrap_kernels; print(extrap_kernels.__version__)", cwd=checkout)


def test_an_editable_install_of_another_checkout_is_not_mixed_with_this_one(source, checkout, tmp_path):
    python = environment(tmp_path / "venv", "-e", source, EXTRAP_NATIVE="off")
    output = run(python, "-c", "import extrap_kernels", cwd=checkout, ok=False)
    assert output.splitlines()[-1].startswith("ImportError: "), output


@pytest.mark.parametrize("started", [("-c", "import extrap_kernels"), ("-m", "extrap_kernels", "info")])
def test_without_an_installation_one_line_says_what_to_do(checkout, tmp_path, started):
    last = run(environment(tmp_path / "venv"), *started, cwd=checkout, ok=False).splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"run `pip install {checkout}`, or `pip install -e {checkout}`" in last
