"""``python -m extrap_kernels memory``: its bytes are those of the state that steps make."""

import json
import math
import sys

import helpers
import pytest
import torch

from extrap_kernels import __main__, memory, selftest


class Small(torch.nn.Module):
    """Matrices with and without blocks, a channels_last weight, vectors, and a frozen parameter."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.wide, self.narrow = torch.nn.Linear(96, 67), torch.nn.Linear(5, 3)
        self.conv = torch.nn.Conv2d(16, 32, 3).to(memory_format=torch.channels_last)
        self.row_major = torch.nn.Conv2d(16, 32, 3, bias=False)
        self.scalar = torch.nn.Parameter(torch.ones(()))
        self.frozen = torch.nn.Parameter(torch.ones(64, 64), requires_grad=False)
        self.to(dtype)


def small_in_half():
    return Small(torch.bfloat16)


def stepped(optimizer):
    params = [p for p in helpers.parameters_of(optimizer) if p.requires_grad]
    helpers.set_gradients(params, 0)
    if optimizer.param_groups[0].get("extrapolation") == "extragradient":
        optimizer.extrapolate()
    optimizer.step()
    return sum(v.nbytes for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v))


PERTURBATIONS = {
    "none": {"extrapolation": None},
    "past_gradient": {},
    "past_update": {"extrapolation": "past_update"},
    "extragradient": helpers.EXTRAGRADIENT,
    "noise": {"extrapolation": None, "noise": "uniform"},
}


def covers(row, name):
    named = row.extrapolation
    return named == "any" or (named == "any but none" and name != "none") or name in named.split(", ")


@pytest.mark.parametrize("dtype", memory.PARAM_DTYPES.values(), ids=helpers.describe)
@pytest.mark.parametrize("title", selftest.optimizers())
def test_bytes_are_those_of_the_state(title, dtype):
    optimizer_type, options = selftest.optimizers()[title]
    found = memory.rows(memory.Model(Small(dtype).parameters()), [optimizer_type.__name__], 1)
    ours = [row for row in found if row.optimizer == title]
    formats = ["float32"] if dtype == torch.float64 else ["float32", "bfloat16", "uint8"]
    assert list(dict.fromkeys(row.state_dtype for row in ours)) == formats
    trained = [p for p in Small(dtype).parameters() if p.requires_grad]
    for state_dtype in formats:
        for name, perturbation in PERTURBATIONS.items():
            (row,) = (r for r in ours if r.state_dtype == state_dtype and covers(r, name))
            how = {**options, **perturbation, "state_dtype": getattr(torch, state_dtype)}
            assert row.state == stepped(optimizer_type(list(Small(dtype).parameters()), **how)), (state_dtype, name)
            assert row.parameters == sum(p.nbytes for p in Small(dtype).parameters())
            assert row.gradients == sum(p.nbytes for p in trained)
            assert row.total == row.parameters + row.gradients + row.state


@pytest.mark.parametrize("dtype", memory.PARAM_DTYPES.values(), ids=helpers.describe)
@pytest.mark.parametrize("name, options", [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {})])
def test_bytes_of_torch(name, options, dtype):
    (row,) = (
        row
        for row in memory.rows(memory.Model(Small(dtype).parameters()), [f"Extrap{name}"], 1)
        if row.optimizer.startswith(f"torch.optim.{name}")
    )
    assert row.state == stepped(getattr(torch.optim, name)(list(Small(dtype).parameters()), **options))


def test_bytes_of_flashoptim_are_the_published_ones():
    """3.1 and 2.1 bytes for each weight of 16 bits."""
    found = memory.rows(memory.of_count(10**6, torch.bfloat16), memory.DEFAULT_OPTIMIZERS, 1)
    published = {row.optimizer: row.state / 10**6 for row in found if "Flash" in row.optimizer}
    assert published == {"FlashOptim AdamW": 3.125, "FlashOptim SGD, momentum": 2.0625}
    in_single = memory.rows(memory.of_count(10**6, torch.float32), memory.DEFAULT_OPTIMIZERS, 1)
    assert not any("Flash" in row.optimizer for row in in_single)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("shards", [2, 3, 100])
def test_a_shard_has_its_rows_of_the_whole(shards, state_dtype):
    """The formats are those of the whole tensor: a shard of 4 rows of 96 numbers has blocks, though it is small."""
    whole = torch.nn.Parameter(torch.ones(67, 96, dtype=torch.bfloat16))
    alone, part = (
        next(r for r in memory.rows(memory.Model([whole]), ["ExtrapAdamW"], n) if r.state_dtype == state_dtype)
        for n in (1, shards)
    )
    rows = math.ceil(67 / shards)
    step = 4  # the bytes of the step count
    assert (part.state - step) * 67 == (alone.state - step) * rows
    assert part.parameters * 67 == alone.parameters * rows


@pytest.mark.parametrize("numel", [1, 5, 4096, 10**6 + 7])
def test_a_number_of_parameters_is_kept(numel):
    model = memory.of_count(numel, torch.float32)
    assert sum(p.numel() for p, _ in model.params) == numel
    (row,) = (r for r in memory.rows(model, ["ExtrapSGD"], 1) if r.optimizer.startswith("torch"))
    assert row.parameters == row.gradients == 4 * numel


@pytest.fixture
def run(monkeypatch, capsys):
    """Carry out the command; return its exit status and what it prints."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["extrap_kernels", "memory", *map(str, arguments)])
        try:
            __main__.main()
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return command


@pytest.fixture
def rows_of(run):
    def of(*arguments):
        status, printed, errors = run(*arguments, "--json")
        assert status == 0, errors
        return json.loads(printed)

    return of


def as_json(model, names=memory.DEFAULT_OPTIMIZERS, shards=1):
    return [{**vars(row), "total": row.total} for row in memory.rows(model, names, shards)]


def test_a_module(rows_of):
    found = rows_of("--module", f"{__name__}:small_in_half", "--shards", 2)
    assert found["rows"] == as_json(memory.Model(Small(torch.bfloat16).parameters()), shards=2)
    assert found["numbers"] == sum(p.numel() for p in Small().parameters() if p.requires_grad)
    converted = rows_of("--module", f"{__name__}:small_in_half", "--param-dtype", "float32")
    assert converted["rows"] == as_json(memory.Model(Small().parameters()))


def test_checkpoints(rows_of, tmp_path):
    """Tied weights count once; what is not of floating point does not count."""
    weight = torch.ones(64, 96, dtype=torch.float16)
    tensors = {"embedding": weight, "head": weight, "bias": torch.ones(7), "steps": torch.ones(3, dtype=torch.int64)}
    torch.save(tensors, tmp_path / "state.pt")
    expected = as_json(memory.Model([torch.nn.Parameter(weight), torch.nn.Parameter(torch.ones(7))]))
    assert rows_of("--checkpoint", tmp_path / "state.pt")["rows"] == expected
    save_file = pytest.importorskip("safetensors.torch").save_file
    del tensors["head"]
    save_file(tensors, tmp_path / "state.safetensors", metadata={"format": "pt"})
    assert rows_of("--checkpoint", tmp_path / "state.safetensors")["rows"] == expected


def test_the_table_has_every_row(run):
    status, printed, _ = run("--params", "7e9", "--param-dtype", "bfloat16", "--shards", 8)
    assert status == 0
    for row in memory.rows(memory.of_count(7 * 10**9, torch.bfloat16), memory.DEFAULT_OPTIMIZERS, 8):
        (line,) = (l for l in printed.splitlines() if l.startswith(f" {row.optimizer}  ") and row.state_dtype in l)
        expected = [f"{n / 2**30:.2f}" for n in (row.parameters, row.gradients, row.state, row.total)]
        assert line.split()[-4:] == expected
    assert "7,000,000,000 numbers" in printed and "assumed" in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--params", "7e9", "--optimizer", "Lion"], "Invalid optimizer value: 'Lion'; choose from ['ExtrapAdam', "),
        (["--params", "7e9", "--shards", "0"], "Invalid shards value: 0"),
        (["--params", "1.5"], "'1.5' is not a whole number"),
        (["--params", "inf"], "'inf' is not a whole number"),
        (["--params", "many"], "'many' is not a whole number"),
        (["--params", "9", "--param-dtype", "int8"], "invalid choice: 'int8'"),
        (["--module", "torch.nn:Lin"], "has no attribute 'Lin'"),
        (["--module", "no_such_package:f"], "No module named 'no_such_package'"),
        (["--module", "torch.nn"], "package.module:function"),
        (["--module", "builtins:dict"], "returned a dict; it must return a torch.nn.Module"),
        (["--module", "torch.nn:Identity"], "no parameter to train"),
        (["--checkpoint", "README.md"], "--checkpoint README.md"),
        (["--checkpoint", "no.safetensors"], "No such file"),
    ],
)
def test_what_cannot_be_read_is_said(run, arguments, message):
    status, printed, errors = run(*arguments)
    assert status == 2 and printed == "" and message in errors


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"model": {"w": torch.ones(3)}, "epoch": 3}, tmp_path / "all.pt")
    with pytest.raises(ValueError, match=r"holds \['model', 'epoch'\]; save model.state_dict\(\) alone"):
        memory.of_checkpoint(tmp_path / "all.pt", None)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="no file of safetensors"):
        memory.of_checkpoint(tmp_path / "bad.safetensors", None)
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "fp8.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"00")
    with pytest.raises(ValueError, match="'w' is F8_E4M3; known are"):
        memory.of_checkpoint(tmp_path / "fp8.safetensors", None)


def test_lazy_parameters_are_refused(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "lazy", lambda: torch.nn.LazyLinear(3), raising=False)
    with pytest.raises(ValueError, match="has lazy parameters"):
        memory.of_factory(f"{__name__}:lazy", None)
