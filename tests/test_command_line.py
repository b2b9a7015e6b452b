"""The command lines of ``python -m extrap_kernels`` and ``python -m bench``: help, errors, exit codes, JSON."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import torch

from bench import __main__ as bench_main
from bench import state_formats
from bench.cases import cases
from extrap_kernels import __main__ as package_main
from extrap_kernels import backends, command_line, factory, info, memory, selftest

MAINS = {"extrap_kernels": package_main, "bench": bench_main}
PACKAGE, BENCH = ("info", "selftest", "memory"), ("measure", "static", "profile", "compare", "state_formats")
EVERY = [("extrap_kernels", name) for name in PACKAGE] + [("bench", name) for name in BENCH]
every_command = pytest.mark.parametrize("program, command", EVERY, ids=" ".join)


@pytest.fixture
def run(monkeypatch, capsys):
    """Carry out a command; return its exit code and what it prints on stdout and stderr."""

    def of(program, *arguments):
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        try:
            MAINS[program].main()
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return of


@pytest.fixture
def without_work(monkeypatch):
    """Nothing is done; returned are the commands that would have been carried out."""
    done = []

    def instead_of(name):
        return lambda *_, **__: done.append(name) or True

    monkeypatch.setattr(selftest, "chosen", lambda device, backend: (device, backend))
    for module, function, name in ((info, "run", "info"), (selftest, "run", "selftest"), (memory, "report", "memory")):
        monkeypatch.setattr(module, function, instead_of(name))
    for name in BENCH:
        monkeypatch.setitem(bench_main._RUN, name, instead_of(name))
    return done


@every_command
def test_help_has_an_example_that_runs_and_the_exit_codes(run, without_work, program, command):
    status, printed, _ = run(program, command, "--help")
    assert status == 0 and command_line.EXIT_CODES in printed
    example = shlex.split(re.search(r"^example: (.*)$", printed, re.MULTILINE)[1])
    assert example[:3] == ["python", "-m", program]
    assert run(program, *example[3:])[0] == 0 and without_work == [command]


@pytest.mark.parametrize("program", MAINS)
def test_help_lists_the_commands(run, without_work, program):
    status, printed, _ = run(program, "--help")
    assert status == 0 and command_line.EXIT_CODES in printed
    assert [command for other, command in EVERY if other == program and command in printed] == list(
        PACKAGE if program == "extrap_kernels" else BENCH
    )
    example = shlex.split(re.search(r"^example: (.*)$", printed, re.MULTILINE)[1])
    assert run(program, *example[3:])[0] == 0 and len(without_work) == 1


TITLES = [case.title for case in cases(1, False, torch.device("cpu"))]
OPTIMIZERS = [each.__name__ for each in factory.optimizers().values()]
WRONG = [
    ("extrap_kernels", "nonsense", PACKAGE),
    ("extrap_kernels", "info --backend cpu", ["--backend"]),
    ("extrap_kernels", "selftest --backend nonsense", ["auto", *backends.BACKENDS]),
    ("extrap_kernels", "selftest --device nonsense", ["cpu, cuda"]),
    ("extrap_kernels", "selftest --device cuda:99", ["'cuda:99' is not there", "--device cpu"]),
    ("extrap_kernels", "memory", ["--params", "--module", "--checkpoint"]),
    ("extrap_kernels", "memory --params 0", ["'0' is not a whole number above 0"]),
    ("extrap_kernels", "memory --params 7e9 --optimizer nonsense", OPTIMIZERS),
    ("extrap_kernels", "memory --params 7e9 --param-dtype nonsense", memory.PARAM_DTYPES),
    ("extrap_kernels", "memory --checkpoint no.safetensors", ["no.safetensors"]),
    ("bench", "nonsense", BENCH),
    ("bench", "--only nonsense", [*TITLES, *bench_main.OTHERS]),
    ("bench", "measure --only nonsense", [*TITLES, *bench_main.OTHERS]),
    ("bench", "--only (", ["is no regular expression"]),
    ("bench", "--only 1,000 --without nonsense", ["ExtrapSGD", "torch, fused"]),
    ("bench", "--only 1,000 --without [", ["is no regular expression"]),
    ("bench", "--rounds 0", ["'0' is not a whole number above 0"]),
    ("bench", "--device nonsense", ["cpu, cuda"]),
    ("bench", "--device cuda:99", ["'cuda:99' is not there", "--device cpu"]),
    ("bench", "static --only SGD", ["--only"]),
    ("bench", "profile a.json", ["a.json"]),
    ("bench", "compare a.json", ["B"]),
    ("bench", "compare no.json no.json", ["no.json"]),
    ("bench", "compare README.md README.md", ["README.md is no JSON"]),
    ("bench", "state_formats a.json", ["a.json"]),
]


@pytest.mark.parametrize("program, arguments, known", WRONG, ids=[f"{p} {a}" for p, a, _ in WRONG])
def test_wrong_use_ends_with_2_and_says_what_is_known(run, program, arguments, known):
    status, printed, said = run(program, *arguments.split())
    assert status == command_line.WRONG_USE == 2 and printed == ""
    assert re.search(rf"^python -m {program}.*: error: ", said, re.MULTILINE)
    assert [name for name in known if name not in said] == []


def test_every_command_can_be_used_wrongly():
    tried = {(program, arguments.split()[0]) for program, arguments, _ in WRONG}
    assert set(EVERY) - tried == set()


@pytest.fixture
def one_check(monkeypatch):
    """A self-test of one optimizer and dtype, without the measuring."""
    monkeypatch.setattr(selftest, "DTYPES", (torch.float32,))
    every = selftest.optimizers()
    monkeypatch.setattr(selftest, "optimizers", lambda: {"ExtrapSGD": every["ExtrapSGD"]})
    monkeypatch.setattr(selftest, "figures", lambda device, backend, numel: {"backend": backend})


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_a_failed_check_ends_with_1(run, one_check, monkeypatch, right, as_json):
    found = selftest.Parity(cases=3, identical=2, base_error=0.5, error=0.25, passed=right)
    monkeypatch.setattr(selftest, "parity", lambda *_: found)
    status, printed, _ = run("extrap_kernels", "selftest", "--device", "cpu", *["--json"] * as_json)
    assert status == (0 if right else command_line.CHECK_FAILED == 1)
    if as_json:
        result = json.loads(printed)
        assert result["passed"] == right and result["figures"] == {"backend": "cpu"} and result["checks"] == {}
        assert result["parity"] == [{"optimizer": "ExtrapSGD", "dtype": "float32", **vars(found)}]
    else:
        words = f"ExtrapSGD float32 {'ok' if right else 'FAILED'} 3 2 5.0e-01 2.5e-01"
        assert words in re.sub(r" +", " ", printed) and ("all checks passed" in printed) == right


def test_a_step_that_raises_names_its_case(run, one_check, monkeypatch):
    """It is no wrong use: Python prints the traceback and ends with 1."""

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(selftest, "parity", broken)
    with pytest.raises(RuntimeError, match="steps of ExtrapSGD with float32 on backend 'cpu' failed"):
        run("extrap_kernels", "selftest", "--device", "cpu")


def test_info_as_json(run):
    status, printed, _ = run("extrap_kernels", "info", "--json")
    found = json.loads(printed)
    assert status == 0 and list(found["backends"]) == list(backends.BACKENDS)
    assert found["backends"]["cpu"] is None and found["backends"]["reference"] is None
    assert found["torch"] == torch.__version__ and found["native"]["instruction_set"]
    (cpu,) = (device for device in found["devices"] if device["device"] == "cpu")
    assert cpu["auto"] == "cpu"


def test_memory_as_json(run):
    status, printed, _ = run("extrap_kernels", "memory", "--params", "1e6", "--json")
    assert status == 0 and json.loads(printed)["numbers"] == 10**6


@pytest.mark.parametrize("command", ["static", "profile", "compare", "state_formats"])
def test_tables_of_bench_as_json(run, monkeypatch, tmp_path, command):
    rows = [{"case": "a", "ms": 2.0}]
    monkeypatch.setattr(bench_main.static, "sections", lambda bandwidth: [("Title", rows), ("a note", [])])
    monkeypatch.setattr(bench_main.profile, "rows", lambda: rows)
    monkeypatch.setattr(bench_main.compare, "sections", lambda a, b: [("Title", rows)])
    monkeypatch.setattr(state_formats, "run", lambda quick, page: [("Title", rows)])
    monkeypatch.setattr(bench_main.machine, "describe", lambda device: {"device": device.type})
    out = tmp_path / "new" / "out.json"
    files = ("a.json", "b.json") if command == "compare" else ()
    assert run("bench", command, *files, "--json", out)[0] == 0
    written = json.loads(out.read_text())
    assert rows in written["tables"].values()
    assert written["about"]["command"] == f"python -m bench {command}"
    assert written["about"]["device"] == ("cuda" if command == "profile" else "cpu")


def test_other_files_are_not_compared(run, tmp_path):
    other = tmp_path / "other.json"
    other.write_text("[]")
    status, _, said = run("bench", "compare", other, other)
    assert status == 2 and "was not written by python -m bench --json" in said


def test_a_pipe_gets_no_bar_and_whole_tables(capsys):
    assert list(command_line.progress([1, 2], "work")) == [1, 2]
    assert capsys.readouterr().out == ""
    cells = ["[bold]x", "12", "word " * 20]
    command_line.show(("name", "n", "text"), [cells], title="Title", numbers=("n",))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Title" and f"[bold]x   12   {cells[2].strip()}" in lines


@pytest.mark.parametrize("program", MAINS)
def test_the_program_runs_on_its_own(program):
    command = [sys.executable, "-m", program, "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "invalid choice: 'nonsense'" in done.stderr and "Traceback" not in done.stderr
