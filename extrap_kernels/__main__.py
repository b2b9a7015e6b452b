"""``python -m extrap_kernels``: ``info`` lists the backends, ``selftest`` compares one with the reference."""

from __future__ import annotations

import argparse
import platform
import sys

import torch

import extrap_kernels
from extrap_kernels import backends, selftest


def _info() -> None:
    print(f"extrap_kernels {extrap_kernels.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    for name in backends.BACKENDS:
        reason = backends.missing_reason(name)
        print(f"  {name:14}{'available' if reason is None else 'not available: ' + reason}")
    if backends.missing_reason("cpu") is None:
        from extrap_kernels import _C

        reading = (
            "torch's stable C interface" if _C.reads_by_stable_interface() else "their attributes, which is slower"
        )
        print(f"  tensors are read by {reading}")
        print(f"  instruction set {_C.instruction_set()} of {', '.join(_C.instruction_sets())}")
        if _C.cuda_built:
            print(f"  CUDA {_C.cuda_version} kernels for architectures {_C.cuda_archs}, the last one in PTX, too")
    print(f"  backend='auto' takes {backends.resolve('auto', torch.device('cpu')).name!r} for CPU tensors")
    for i in range(torch.cuda.device_count()):
        _info_on_gpu(torch.device("cuda", i))


def _info_on_gpu(device: torch.device) -> None:
    taken = backends.resolve("auto", device).name
    print(f"  backend='auto' takes {taken!r} for tensors on {device}, {torch.cuda.get_device_name(device)}")
    reason = backends.missing_reason("cuda", device)
    if reason != backends.missing_reason("cuda"):
        print(f"    'cuda' is not available there: {reason}")


def main() -> None:
    """Run the command named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m extrap_kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print what is available here")
    test = commands.add_parser("selftest", help="compare a backend with the reference on this machine")
    test.add_argument("--device", help="cuda or cpu (default: a GPU where there is one)")
    test.add_argument("--backend", default="auto", help="backend to test (default: auto)")
    arguments = parser.parse_args()
    if arguments.command == "info":
        _info()
        return
    try:
        passed = selftest.run(arguments.device, arguments.backend)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"selftest: {error}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
