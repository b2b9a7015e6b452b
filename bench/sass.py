"""Machine code as cuobjdump prints it: how many instructions a step kernel's loop over parts takes."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

# How tiles are loaded and stored, and in how many bits. What a launch reads once has no hint about cache lines.
_LOAD, _STORE = r"\bLDG\.E\.LTC128B\.(\d+)", r"\bSTG\.E\.(\d+)"
# Of the loads of tiles: the local gradient, and y where it is compared with x.
_OPTIONAL_LOADS = 2
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+([^;]*\S)\s*;")
# A predicate stands before a branch, or before its target.
_BRANCH = re.compile(r"(@\S+ )?BRA(?:\.\S+)? (.*)(0x[0-9a-f]+)$")
# Those that a rule asks for: roots and divisions are made of others, fused ones, and of some that flush.
_ARITHMETIC = re.compile(r"(@\S+ )?[FD](ADD|MUL) ")
_END = re.compile(r"(@\S+ )?(?:CALL|RET|EXIT)\b")


class Block(NamedTuple):
    """Instructions that run one after the other.

    Attributes:
        length: how many.
        marks: a bit for each of them that is looked for.
        arithmetic: how many add or multiply.
        followers: where the blocks begin that may run next; what is called or returned to is not followed.
    """

    length: int
    marks: int
    arithmetic: int
    followers: list[int]


Blocks = Mapping[int, Block]  # by where they begin


class Loop(NamedTuple):
    """Where a loop begins, and where each of its blocks does."""

    head: int
    blocks: set[int]


def fewest_instructions(code: str, least_bits: int, operands: Sequence[str] = (), arithmetic: int = 0) -> int:
    """Return the length of the shortest path through the loop over parts that loads and stores the tiles of a part.

    Whether options lead along that path is not looked at. Slow paths of divisions and roots are not on it, nor what is
    called, nor are the loops within, which are for elements that are taken one by one.

    Args:
        code: a step kernel.
        least_bits: the width of the narrowest access of a tile.
        operands: the path also has all instructions outside of the loops within that have one of these operands.
        arithmetic: the path also has as many additions and multiplications. So it is not that of another phase, which
            computes less and stores the same tiles under a predicate.

    Raises:
        ValueError: the code has no such loop or path, or nothing with an operand.
    """
    instructions = _reached([(int(at, 16), text) for at, text in _INSTRUCTION.findall(code)])
    loads, stores = (
        [at for at, text in instructions if (found := re.search(access, text)) and int(found[1]) >= least_bits]
        for access in (_LOAD, _STORE)
    )
    marked = [[at for at, text in instructions if re.search(rf"\b{each}\b", text)] for each in operands]
    bits = {at: 1 << i for i, at in enumerate(sum(marked, [*loads, *stores]))}
    blocks = _blocks(instructions, bits)
    tiles, optional = (_union(bits[at] for at in which) for which in ([*loads, *stores], loads))
    loops = _loops(blocks)
    with_tiles = [loop for loop in loops if stores and not tiles & ~_marks(blocks, loop.blocks)]
    if not with_tiles:
        raise ValueError(f"no loop has all of the kernel's {len(loads)} loads and {len(stores)} stores of tiles")
    head, whole = min(with_tiles, key=lambda loop: len(loop.blocks))
    inside = whole.difference(*(loop.blocks for loop in loops if loop.blocks < whole))
    required = _marks(blocks, inside) & ~optional
    for operand, addresses in zip(operands, marked):
        if not required & _union(bits[at] for at in addresses):
            raise ValueError(f"nothing in the loop over parts has the operand {operand}")
    length = _shortest({at: blocks[at] for at in inside}, head, required, optional, arithmetic)
    if length is None:
        raise ValueError(
            f"no path through the loop at {head:#x} has {len(stores)} stores of tiles, {operands} and {arithmetic} "
            "additions and multiplications"
        )
    return length


def _shortest(blocks: Blocks, head: int, required: int, optional: int, arithmetic: int) -> Optional[int]:
    """Return the length of the shortest path from the head back to it with these marks; two optional ones may lack."""
    # Dijkstra's algorithm: of what is known, the shortest path is next, with where it leads, its marks, its arithmetic.
    paths = [(0, head, 0, 0)]
    most: dict[tuple[int, int], int] = {}
    while paths:
        length, at, marks, done = heapq.heappop(paths)
        if at == head and length:
            lacking = bin(optional & ~marks).count("1")
            if not required & ~marks and lacking <= _OPTIONAL_LOADS and done >= arithmetic:
                return length
        elif done > most.get((at, marks), -1):  # else a shorter path has done as much
            most[at, marks] = done
            block = blocks[at]
            for follower in blocks.keys() & block.followers:
                reached = min(done + block.arithmetic, arithmetic)
                heapq.heappush(paths, (length + block.length, follower, marks | block.marks, reached))
    return None


def _blocks(instructions: Sequence[tuple[int, str]], bits: Mapping[int, int]) -> Blocks:
    """Cut code at its branches and where they lead."""
    addresses = [at for at, _ in instructions]
    ends = {at: _BRANCH.match(text) or _END.match(text) for at, text in instructions}
    targets = {at: int(end[3], 16) for at, end in ends.items() if end and end.re is _BRANCH}
    begins = {addresses[0], *targets.values(), *(after for at, after in zip(addresses, addresses[1:]) if ends[at])}
    arithmetic = {at for at, text in instructions if _ARITHMETIC.match(text)}
    blocks = {}
    inside: list[int] = []
    for at, after in zip(addresses, [*addresses[1:], -1]):
        inside.append(at)
        if after >= 0 and after not in begins:
            continue
        end = ends[at]
        is_conditional = end is None or end[1] or at in targets and end[2]
        followers = [*([after] if is_conditional else []), *([targets[at]] if at in targets else [])]
        marks = _union(bits.get(each, 0) for each in inside)
        blocks[inside[0]] = Block(len(inside), marks, len(arithmetic.intersection(inside)), followers)
        inside = []
    return blocks


def _reached(instructions: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Leave out what only calls lead to. What comes after a call is reached by its return."""
    blocks = _blocks(instructions, {})
    returns = {at: after for (at, text), (after, _) in zip(instructions, instructions[1:]) if "CALL" in text}
    last, begin = {}, instructions[0][0]
    for at, _ in instructions:
        begin = at if at in blocks else begin
        last[begin] = at
    reached, waiting = set(), [instructions[0][0]]
    while waiting:
        at = waiting.pop()
        if at in blocks and at not in reached:
            reached.add(at)
            waiting += [*blocks[at].followers, *([returns[last[at]]] if last[at] in returns else [])]
    begin, kept = instructions[0][0], []
    for at, text in instructions:
        begin = at if at in blocks else begin
        if begin in reached:
            kept.append((at, text))
    return kept


def _loops(blocks: Blocks) -> list[Loop]:
    """Return a loop for each block that a later one or itself branches to: all from which such a branch is reached."""
    leading_to = defaultdict(list)
    for at, block in blocks.items():
        for follower in block.followers:
            leading_to[follower].append(at)
    loops = []
    for head in blocks:
        loop, waiting = {head}, [at for at in leading_to[head] if at >= head]
        if not waiting:
            continue
        while waiting:
            at = waiting.pop()
            if at not in loop:
                loop.add(at)
                waiting += leading_to[at]
        loops.append(Loop(head, loop))
    return loops


def _marks(blocks: Blocks, which: Iterable[int]) -> int:
    return _union(blocks[at].marks for at in which)


def _union(bits: Iterable[int]) -> int:
    union = 0
    for each in bits:
        union |= each
    return union
