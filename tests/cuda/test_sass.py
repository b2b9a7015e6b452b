"""The shortest path through the loop of a step kernel, in machine code of a few instructions."""

import pytest

from bench import sass

# A chunk: a loop over parts, of which single elements take another way, with a loop over them.
CODE = """
    LDG.E.LTC128B R9, [R2]         ; first of a chunk
  chunk:
    MOV R1, R2
  part:
    ISETP.NE.AND P0, PT, R0, RZ, PT
    @P0 BRA one_by_one
    LDG.E.LTC128B.128 R4, [R2.64]
    @P1 LDG.E.LTC128B.128 R8, [R6.64]
    @!P2 BRA loaded
    LDG.E.LTC128B.64 R12, [R6.64]
    BRA loaded
  one_by_one:
    LDG.E.LTC128B R4, [R2.64]
    BRA loaded
  loaded:
    BRA P3, straight
    MUFU.RCP R5, R4
    FMUL R5, R5, R4
    CALL.REL.NOINC slow
    FADD R5, R5, R4
    BRA drawn
  straight:
    FADD R5, R5, R4
  drawn:
    BRA.U UP0, store
    BRA P5, each
    IMAD R7, R7, 0x7feb352d, RZ
    FADD R5, R5, R7
    BRA store
  each:
    IMAD R7, R7, 0x7feb352d, RZ
    @P4 BRA each
  store:
    @P0 BRA store_numbers
    STG.E.128 [R2.64], R4
    STG.E.64 [R6.64], R6
    BRA end
  store_numbers:
    STG.E [R2.64], R4
  end:
    @!P6 BRA part
    @P6 BRA chunk
    EXIT
  slow:
    MOV R3, R4
    RET.REL.NODEC R20 `(kernel)
"""


def assembled(code):
    """As cuobjdump prints it: a line with address and code, and a line with the rest of the code."""
    lines, labels = [], {}
    for line in code.strip("\n").splitlines():
        if line.endswith(":"):
            labels[line.strip(" :")] = 16 * len(lines)
        else:
            lines.append(line.partition(";")[0].strip())
    for label, at in labels.items():
        lines = [line.replace(f" {label}", f" {at:#x}") for line in lines]
    return "".join(
        f"        /*{16 * i:04x}*/     {line} ;     /* 0x00000a00ff017b82 */\n{' ' * 60}/* 0x000fe20000000800 */\n"
        for i, line in enumerate(lines)
    )


def test_shortest_path_moves_the_tiles():
    """One of three loads is left out. So are that of single elements, the call, and what draws nothing."""
    assert sass.fewest_instructions(assembled(CODE), 64) == 5 + 2 + 1 + 4 + 1


def test_only_two_loads_may_be_left_out():
    """Of five: the way to the third, two instructions more, is shorter than that to the fourth and fifth."""
    code = CODE.replace("    CALL.REL.NOINC slow\n", "    LDG.E.LTC128B.64 R1, [R6.64]\n" * 2)
    assert sass.fewest_instructions(assembled(code), 64) == 13 + 2


def test_operands_are_on_the_path():
    """But for those of the loop over single elements."""
    assert sass.fewest_instructions(assembled(CODE), 64, ["0x7feb352d"]) == 13 + 4


def test_arithmetic_is_on_the_path():
    """One addition is on the shortest path; the second one is where the operand of the test above is."""
    assert sass.fewest_instructions(assembled(CODE), 64, arithmetic=1) == 13
    assert sass.fewest_instructions(assembled(CODE), 64, arithmetic=2) == 13 + 4
    with pytest.raises(ValueError, match="and 3 additions and multiplications"):
        sass.fewest_instructions(assembled(CODE), 64, arithmetic=3)


def test_what_is_called_does_not_count():
    """Tiles that only a called function moves are of another path."""
    code = CODE.replace("    MOV R3, R4", "    STG.E.128 [R2.64], R4")
    assert sass.fewest_instructions(assembled(code), 64) == 13


def test_what_is_not_there():
    with pytest.raises(ValueError, match="nothing in the loop over parts has the operand 0x3fff"):
        sass.fewest_instructions(assembled(CODE), 64, ["0x3fff"])
    with pytest.raises(ValueError, match="no loop has all of the kernel's 0 loads and 0 stores"):
        sass.fewest_instructions(assembled(CODE), 256)
    apart = CODE.replace("    EXIT", "    STG.E.128 [R2.64], R4\n    EXIT")
    with pytest.raises(ValueError, match="no loop has all of the kernel's 3 loads and 3 stores"):
        sass.fewest_instructions(assembled(apart), 64)
    called = CODE.replace("    @P0 BRA store_numbers", "    CALL.REL.NOINC slow")
    with pytest.raises(ValueError, match="no loop has all of"):
        sass.fewest_instructions(assembled(called), 64)
