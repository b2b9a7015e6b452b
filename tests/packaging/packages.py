"""How the tests in this folder install the package: with a pip, a wheel and an environment of their own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "results", "*.egg-info", "*.so", "__pycache__")
PIP = ("-m", "pip", "--disable-pip-version-check")

# Run with the folder that must hold the package. Every step is taken twice, natively and by the reference.
SMOKE = """
import importlib.util, os, pathlib, re, sys
import torch
import extrap_kernels
from extrap_kernels import ExtrapSGD

for module in (extrap_kernels, extrap_kernels._C):
    assert pathlib.Path(sys.argv[1]) in pathlib.Path(module.__file__).parents, module.__file__
assert importlib.util.find_spec("extrap_kernels.triton_kernels")

def train(backend):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((300, 7), (5,))]
    optimizer = ExtrapSGD(params, lr=0.1, momentum=0.9, nesterov=True, backend=backend)
    for _ in range(3):
        optimizer.zero_grad()
        sum((p ** 2).sum() for p in params).backward()
        optimizer.step()
    return params

for native, reference in zip(train("cpu"), train("reference")):
    torch.testing.assert_close(native, reference, rtol=1e-6, atol=1e-6)

with open("/proc/self/maps") as maps:
    runtimes = {line.split()[-1] for line in maps if re.search("lib(g|i)?omp", line)}
assert len(runtimes) == 1, f"torch's OpenMP runtime must be the only one: {runtimes}"

def threads_after(work):
    work()
    return len(os.listdir("/proc/self/task"))

# Our kernels follow torch's number of threads, by the very threads that torch's operators use.
torch.set_num_threads(1)
large = torch.nn.Parameter(torch.ones(1 << 20))
large.grad = torch.ones_like(large)
optimizer = ExtrapSGD([large], lr=0.1, backend="cpu")
torch.set_num_threads(3)
before = threads_after(lambda: None)
assert threads_after(optimizer.step) == before + 2
assert threads_after(lambda: torch.ones(1 << 20).exp_()) == before + 2
print("smoke passed with torch", torch.__version__)
"""


def run(*command, ok=True, cwd=None, **env):
    """Run a command without the EXTRAP_* settings of this process; return its output once its status is as expected."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EXTRAP_") and k != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **{k: str(v) for k, v in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode == 0) == ok, f"{command} returned {done.returncode}:\n{done.stdout}"
    return done.stdout


def build_wheel(source, folder, *options, ok=True, **env):
    return run(sys.executable, *PIP, "wheel", "--no-deps", "-w", folder, source, *options, ok=ok, **env)


def failed_build(source, folder, **env):
    """What is said by a build with the build requirements that are installed here."""
    return build_wheel(source, folder, "--no-build-isolation", ok=False, **env)


def environment(folder, *what, python=sys.executable, **env):
    """A venv with `what` installed and, behind that, the packages of `python`: its torch."""
    purelib = ("-c", "import sysconfig; print(sysconfig.get_path('purelib'), end='')")
    run(python, "-m", "venv", folder)
    own = folder / "bin" / "python"
    if what:
        run(own, *PIP, "install", "--no-deps", *what, **env)
    # Last, so that pip above did not take an extrap-kernels of `python` for installed. A folder that is named by a .pth
    # file does not get its own .pth files read: an editable install in it stays out.
    Path(run(own, *purelib), "parent.pth").write_text(run(python, *purelib))
    return own


def assert_clear(output):
    """Nothing but an error: no file was copied before it, and it can be read at a glance."""
    assert "copying " not in output and len(output.splitlines()) < 60, output


def words(output):
    """The output without CMake's line breaks."""
    return re.sub(r"\s+", " ", output)
