"""The recipes of CONTRIBUTING.md, carried out with toys in the files that they name and in no others."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recipes.edits import EDITS

ROOT = Path(__file__).parents[1]
TOYS = Path(__file__).parent / "recipes"
FOLDERS = ("csrc", "extrap_kernels", "triton_kernels")
FILES = ("setup.py", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE")
# Of the recipes in CONTRIBUTING.md.
TITLES = {
    "rule": "A rule",
    "scalar": "A scalar",
    "direction": "A direction of extrapolation",
    "noise": "A noise",
    "format": "A state format",
}

# At most so many source files, and so many of them lists by hand.
LIMITS = {"rule": (5, 2), "scalar": (3, 3), "direction": (4, 4), "noise": (4, 4), "format": (4, 4)}


def new_files(recipe):
    files = (path.relative_to(TOYS / recipe) for path in (TOYS / recipe).rglob("*.*") if path.is_file())
    return {str(path) for path in files if "__pycache__" not in path.parts}


def named_files(recipe):
    """What CONTRIBUTING.md names in a recipe, with the toys' names in it."""
    body = (ROOT / "CONTRIBUTING.md").read_text().split(f"### {TITLES[recipe]}\n")[1].split("\n##")[0]
    steps = re.findall(r"^\d+\. (.*?)(?=^\d+\. |\Z|\n\n)", body, re.M | re.S)
    named = {name for step in steps for name in re.findall(r"`([\w/<>]+\.(?:py|h))`", step)}
    return {name.replace("<rule>", "sign").replace("<format>", "rounded_float16") for name in named}


@pytest.mark.parametrize("recipe", EDITS)
def test_a_recipe_touches_few_files_and_names_them(recipe):
    touched = new_files(recipe) | set(EDITS[recipe])
    files, lists = LIMITS[recipe]
    assert len(touched) <= files and len(EDITS[recipe]) <= lists
    assert touched <= named_files(recipe)


def apply(edits, tree):
    for name, changes in edits.items():
        text = (tree / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (tree / name).write_text(text)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources with all toys, built in place."""
    tree = tmp_path_factory.mktemp("recipes")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, tree / name)
    for recipe, edits in EDITS.items():
        apply(edits, tree)
        if (TOYS / recipe).exists():
            shutil.copytree(TOYS / recipe, tree, dirs_exist_ok=True, ignore=ignored)
    link = tree / "extrap_kernels" / "triton_kernels"  # as an editable install finds it
    if not link.is_symlink():
        link.symlink_to("../triton_kernels")
    cmake_lists = tree / "CMakeLists.txt"
    # The bits are the same, the build is shorter.
    cmake_lists.write_text(cmake_lists.read_text().replace("-O3", "-O0").replace("-O1", "-O0"))
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(
        build,
        cwd=tree,
        env={**os.environ, "EXTRAP_CUDA": "off", "EXTRAP_ISAS": "native", "EXTRAP_TESTING": "ON"},
        check=True,
    )
    return tree


def run(tree, *backends, **environment):
    script = TOYS / "step_with_toys.py"
    settings = {**os.environ, "PYTHONPATH": str(tree), **environment}
    done = subprocess.run([sys.executable, script, *backends], cwd=tree, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["stepped", "on"]


@pytest.mark.slow
@pytest.mark.xdist_group("recipes")
def test_toys_step_on_the_native_backends(tree):
    run(tree, "reference", "cpu", "cuda-emulated")


@pytest.mark.slow
@pytest.mark.xdist_group("recipes")
def test_toys_step_on_triton(interpreter, tree):
    run(tree, "reference", "triton", TRITON_INTERPRET="1")
