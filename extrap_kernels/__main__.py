"""``python -m extrap_kernels``: ``info`` lists the backends, ``selftest`` compares one with the reference, ``memory``
prints the bytes that training takes.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import extrap_kernels
from extrap_kernels import backends, memory, selftest


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


def _count(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number.is_integer() or number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0, such as 7e9")
    return int(number)


def _add_memory(commands: Any) -> None:
    parser = commands.add_parser(
        "memory",
        help="print the bytes that training takes with each optimizer and state_dtype",
        description="Prints the bytes of parameters, gradients and state, before anything is allocated.",
        epilog="Example: python -m extrap_kernels memory --params 7e9 --param-dtype bfloat16 --shards 8",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--params", type=_count, metavar="N", help=f"how many numbers; {memory.ASSUMPTION}")
    model.add_argument("--module", metavar="PACKAGE.MODULE:FUNCTION", help="a function that builds the torch.nn.Module")
    model.add_argument("--checkpoint", type=Path, metavar="FILE", help=".safetensors, or a state dict by torch.save")
    parser.add_argument(
        "--param-dtype", choices=memory.PARAM_DTYPES, help="(default: that of the model; float32 with --params)"
    )
    parser.add_argument("--shards", type=int, default=1, metavar="K", help="ranks that share each tensor (default: 1)")
    names = memory.DEFAULT_OPTIMIZERS
    parser.add_argument("--optimizer", nargs="+", default=names, metavar="NAME", help=f"(default: {' '.join(names)})")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes")


def _memory(arguments: argparse.Namespace) -> None:
    dtype = memory.PARAM_DTYPES.get(arguments.param_dtype)
    if arguments.module is not None:
        model = memory.of_factory(arguments.module, dtype)
    elif arguments.checkpoint is not None:
        model = memory.of_checkpoint(arguments.checkpoint, dtype)
    else:
        model = memory.of_count(arguments.params, dtype or torch.float32)
    assumption = memory.ASSUMPTION if arguments.params is not None else ""
    memory.report(model, arguments.optimizer, arguments.shards, as_json=arguments.json, assumption=assumption)


def main() -> None:
    """Run the command named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m extrap_kernels", description=__doc__)
    parser.add_argument("--version", action="version", version=extrap_kernels.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print what is available here")
    test = commands.add_parser("selftest", help="compare a backend with the reference on this machine")
    test.add_argument("--device", help="cuda or cpu (default: a GPU where there is one)")
    test.add_argument("--backend", default="auto", help="backend to test (default: auto)")
    _add_memory(commands)
    arguments = parser.parse_args()
    try:
        if arguments.command == "info":
            _info()
        elif arguments.command == "memory":
            _memory(arguments)
        elif not selftest.run(arguments.device, arguments.backend):
            sys.exit(1)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    main()
