"""``python -m extrap_kernels``: ``info`` lists the backends, ``selftest`` compares one with the reference, ``memory``
prints the bytes that training takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

import extrap_kernels
from extrap_kernels import backends, command_line, info, memory, selftest

PROG = "python -m extrap_kernels"


def _add_info(commands: Any) -> None:
    does = "print the backends that are available here, and which one tensors of each device get"
    parser = command_line.command(commands, "info", does, f"{PROG} info --json")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_selftest(commands: Any) -> None:
    does = "compare a backend with the reference on this machine, in a minute or two"
    parser = command_line.command(commands, "selftest", does, f"{PROG} selftest --device cuda --backend triton")
    parser.add_argument("--device", help="cuda, cpu or another one of torch (default: a GPU where there is one)")
    names = ", ".join(("auto", *backends.BACKENDS))
    parser.add_argument("--backend", default="auto", metavar="NAME", help=f"one of {names} (default: auto)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_memory(commands: Any) -> None:
    does = "print the bytes of parameters, gradients and state with each optimizer, before anything is allocated"
    example = f"{PROG} memory --params 7e9 --param-dtype bfloat16 --shards 8"
    parser = command_line.command(commands, "memory", does, example)
    model = parser.add_mutually_exclusive_group(required=True)
    of_count = f"how many numbers; {memory.ASSUMPTION}"
    model.add_argument("--params", type=command_line.positive, metavar="N", help=of_count)
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


def _selftest(arguments: argparse.Namespace) -> None:
    with command_line.wrong_use(f"{PROG} selftest"):
        device, backend = selftest.chosen(arguments.device, arguments.backend)
    if not selftest.run(device, backend, as_json=arguments.json):
        sys.exit(command_line.CHECK_FAILED)


def main() -> None:
    """Run the command named on the command line; the exit codes are those of :mod:`extrap_kernels.command_line`."""
    does = "What this installation has, whether it computes right, and what memory it takes."
    parser = command_line.parser(PROG, does, f"{PROG} info")
    parser.add_argument("--version", action="version", version=extrap_kernels.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_info, _add_selftest, _add_memory):
        add(commands)
    arguments = parser.parse_args()
    if arguments.command == "info":
        info.run(as_json=arguments.json)
    elif arguments.command == "selftest":
        _selftest(arguments)
    else:
        with command_line.wrong_use(f"{PROG} memory"):
            _memory(arguments)


if __name__ == "__main__":
    main()
