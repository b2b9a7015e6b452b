"""The benchmark's own arithmetic, and that its commands run; nothing is timed for its speed."""

import json
import math
import re
import sys
import types

import helpers
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench import (
    baselines,
    flatness,
    gpu_model,
    launches,
    machine,
    measure,
    offload,
    report,
    static,
    twins,
    workloads,
)
from bench.__main__ import main
from extrap_kernels import _C


class CPUAdam(torch.optim.SGD):
    """As DeepSpeed's optimizer is called, which is not installed here."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, lr=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_steps_of_offload(monkeypatch, dtype):
    """Masters in float32 are rounded to the parameters; without DeepSpeed its rows are left out."""
    params = workloads.parameters([(40, 3), (5,)], dtype)
    monkeypatch.setattr(baselines, "installed", lambda path: None)
    assert not any("DeepSpeed" in name for name in [*offload.rows(params), *offload.rows_of_large(params)])
    monkeypatch.setattr(baselines, "installed", lambda path: CPUAdam)
    rows = offload.rows(params)
    deepspeed = [name for name in rows if "DeepSpeed" in name]
    assert len(deepspeed) == (1 if dtype == torch.float32 else 2)
    assert rows[deepspeed[0]].bytes == (28 if dtype == torch.float32 else 22)
    expected = [(p.detach().float() - 0.5 * p.grad.float()).to(dtype) for p in params]
    rows[deepspeed[-1]].run()
    helpers.assert_same_bits([p.detach() for p in params], expected)
    for row in rows.values():
        row.run()


# As published with the models.
SIZES = {
    workloads.resnet50: (161, 25_557_032),
    workloads.gpt2: (148, 124_439_808),
    workloads.llama2_7b: (291, 6_738_415_616),
    workloads.llama3_70b: (723, 70_553_706_496),
}


@pytest.mark.parametrize("model", SIZES, ids=lambda model: model.__name__)
def test_sizes_of_models(model):
    assert (len(model()), workloads.numel_of(model())) == SIZES[model]


def test_offset_parameters_are_unaligned():
    (param,) = workloads.parameters([(7, 3)], offset=1)
    assert param.shape == param.grad.shape == (7, 3) and param.data_ptr() % 16 == param.grad.data_ptr() % 16 == 4


@pytest.mark.parametrize("rule", baselines.TORCH)
@pytest.mark.parametrize("build", [twins.for_loop, twins.foreach], ids=lambda build: build.__name__)
def test_twins_do_the_same_step(rule, build):
    mine, theirs = (workloads.parameters([(40, 3), (5,)]) for _ in range(2))
    optimizer = baselines.ours(rule, mine)
    optimizer.run()
    build(rule, theirs)()
    for p, q in zip(mine, theirs):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "rule, options, fp32, bf16",
    [
        ("sgd", {"max_grad_norm": 1.0}, 4, 2),
        ("adamw", {"noise_scale": "filter"}, 4, 4),
        ("sgd", {"extrapolation": "momentum", "extrap_norm": "global"}, 4, 4),
        ("adamw", {"extrap_norm": "global"}, 8, 6),
        ("lars", {}, 8, 6),
        ("lamb", {}, 16, 14),
    ],
    ids=str,
)
def test_bytes_that_are_read_for_norms(rule, options, fp32, bf16):
    plain = {"lars": "sgd", "lamb": "adamw"}.get(rule, rule)
    for dtype, more in ((torch.float32, fp32), (torch.bfloat16, bf16)):
        without = {name: value for name, value in options.items() if name == "extrapolation"}
        assert baselines.our_bytes(rule, dtype, **options) == baselines.our_bytes(plain, dtype, **without) + more


@pytest.mark.parametrize("rule", baselines.TORCH)
def test_flatness_by_hand_is_that_of_ours(rule):
    """SAM leaves the same weights; MSAM by hand is at the distance rho, and ours is from the second step on."""
    mine, theirs, ours, by_hand = (workloads.parameters([(40, 3), (5,)]) for _ in range(4))
    msam = baselines.OURS[rule](ours, **baselines.OPTIONS[rule], **flatness.MSAM)
    own, other = flatness.Sam(rule, mine), flatness.SamByHand(rule, theirs)
    hand = flatness.MsamByHand(rule, by_hand)
    for _ in range(6):
        for step in (own.step, other.step, msam.step, hand.step):
            step()
    for p, q in zip(mine, theirs):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    moved = sum(float((p.detach() - msam.base_of(p)).square().sum()) for p in ours) ** 0.5
    assert 0.9 * flatness.RHO < moved < 1.5 * flatness.RHO
    assert sum(float(kept.square().sum()) for kept in hand._kept) ** 0.5 == pytest.approx(flatness.RHO, rel=1e-5)
    assert len(flatness.rows(rule, mine)) == 6


@helpers.needs_emulation
@pytest.mark.parametrize("rule", baselines.TORCH)
def test_bytes_of_sam_are_those_that_are_counted(rule):
    (param,) = workloads.parameters([(128, 64)])
    optimizer = baselines.OURS[rule]([param], backend="cuda-emulated", **baselines.OPTIONS[rule], **flatness.SAM)
    halves = (optimizer.extrapolate, optimizer.step)
    for half in halves:
        half()
    counted = sum(size for half in halves for _, size, _, _ in _C.testing.recorded_accesses(half))
    assert counted / param.numel() == flatness.sam_bytes(rule)


def walked(numels, limits, lists):
    """Launches, block by block."""
    blocks = [(i, chunk) for i, numel in enumerate(numels) for chunk in range(math.ceil(numel / launches.CHUNK))]
    last = {i: chunk for i, chunk in blocks}
    count, current = 0, []
    for i, chunk in blocks:
        current.append((i, chunk))
        tensors = {tensor for tensor, _ in current}
        whole = len(tensors) == limits.tensors[lists - 1] and chunk == last[i]
        if len(current) == limits.blocks or whole:
            count, current = count + 1, []
    return count + bool(current)


@pytest.mark.parametrize("limits", [launches.APEX, launches.TORCH_CUDA_13])
@pytest.mark.parametrize("lists", [1, 3, 4])
@pytest.mark.parametrize(
    "numels",
    [
        [],
        [0, 1, 0],
        [1] * 1000,
        [launches.CHUNK * 320],
        [launches.CHUNK * 320 + 1, 5],
        [launches.CHUNK * 7, 3] * 300,
        [math.prod(shape) for shape in workloads.resnet50()],
    ],
    ids=lambda numels: f"{len(numels)} tensors",
)
def test_launches_follow_the_tables(limits, lists, numels):
    assert launches.launches(numels, limits, lists) == walked(numels, limits, lists)


class Foreach(TorchDispatchMode):
    """The lists of tensors that each torch._foreach call takes, and one more where it returns a new one."""

    def __init__(self):
        super().__init__()
        self.lists = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        taken = [a for a in args if isinstance(a, list) and torch.is_tensor(a[0])]
        # The step counts are tensors of the host; on a GPU nothing is launched for them.
        if "_foreach" in str(function) and taken[0][0].dim():
            self.lists.append(len(taken) + isinstance(result, list))
        return result


@pytest.mark.parametrize("rule", launches.FOREACH)
def test_foreach_calls_of_torch(rule):
    step = baselines.torchs(rule, workloads.parameters([(3,), (4,)]), foreach=True).run
    step()
    with Foreach() as foreach:
        step()
    assert tuple(foreach.lists) == launches.FOREACH[rule]


def test_exponent_of_a_power():
    sizes = [10.0, 100.0, 1000.0]
    assert measure.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)


def test_marks_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_between_marks(page, report.markdown([{"baseline": "a", "ms": 1234.5, "n": 7}]))
    assert page.read_text().split("\n") == [
        "before",
        report.BEGIN,
        "",
        "| baseline | ms | n |",
        "| --- | ---: | ---: |",
        "| a | 1,234 | 7 |",
        "",
        report.END,
        "after",
        "",
    ]
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the line"):
        report.write_between_marks(page, "")


def test_generated_page_of_each_backend(monkeypatch, tmp_path):
    """One is written, and one whose kernels cannot be compiled here keeps its page."""
    module = types.SimpleNamespace(report_rows=list, launches=len, markdown=lambda: "| table |")
    monkeypatch.setitem(sys.modules, "bench.stub", module)
    monkeypatch.setattr(static, "PROVIDERS", {"cuda": "bench.stub", "triton": "bench.no_such_module"})
    pages = {backend: tmp_path / f"{backend}_kernels.md" for backend in static.PROVIDERS}
    for page in pages.values():
        page.write_text(f"{report.BEGIN}\n{report.END}\n")
    written, missing = static.write_docs(tmp_path)
    assert written == f"Written: {pages['cuda']}" and missing.startswith(f"Not written: {pages['triton']}")
    assert "| table |" in pages["cuda"].read_text() and "|" not in pages["triton"].read_text()


def test_measuring_command(monkeypatch, capsys, tmp_path, threads):
    threads(1)
    out = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "1,000 tensors", "--rounds", "1", "--json", str(out)])
    main()
    written = json.loads(out.read_text())
    (rows,) = written["tables"].values()
    assert [row["baseline"] for row in rows] == ["ExtrapSGD", "torch, fused"] and rows[0]["B/param"] == 24
    assert written["about"]["command"] == "python -m bench --rounds 1 --only 1,000 tensors"
    assert set(machine.describe(torch.device("cpu"))) < set(written["about"])


@pytest.fixture
def compared(monkeypatch, tmp_path):
    """Compares two files whose tables have a time of each baseline, by case."""

    def run(*tables):
        paths = [tmp_path / "a.json", tmp_path / "b.json"]
        for path, table, processor in zip(paths, tables, ("old one", "new one")):
            rows = {case: [{"baseline": b, "ms": ms} for b, ms in times.items()] for case, times in table.items()}
            content = {"about": {"processor": processor}, "tables": {**rows, "Memory": [{"optimizer": "SGD", "ms": 1}]}}
            path.write_text(json.dumps(content))
        monkeypatch.setattr(sys, "argv", ["bench", "compare", *map(str, paths)])
        main()

    return run


def test_files_side_by_side(compared, capsys):
    compared({"SGD": {"ExtrapSGD": 4.0, "apex": 2.0}}, {"SGD": {"ExtrapSGD": 3.0, "graph": 1.0}})
    said = capsys.readouterr().out
    assert "a.json; processor: old one\n" in said and "b.json; processor: new one\n" in said
    assert [line.split() for line in said.splitlines() if line.startswith(" SGD ")] == [
        ["SGD", "ExtrapSGD", "4", "3", "0.75"],
        ["SGD", "apex", "2", "-", "-"],
        ["SGD", "graph", "-", "1", "-"],
    ]


def test_files_of_different_cases_are_refused(compared, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        compared({"SGD": {"apex": 2.0}, "LARS": {"apex": 2.0}}, {"SGD": {"apex": 2.0}})
    said = capsys.readouterr().err
    assert re.search(r"different cases: only A has \['LARS'\], only B has \[\]; .* same --only", said)


def test_profile_needs_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench", "profile"])
    with pytest.raises(SystemExit, match="^2$"):
        main()
    missing = "torch finds no CUDA device; run this on a machine with an NVIDIA GPU and its driver"
    printed = capsys.readouterr()
    assert printed.err == f"python -m bench profile: error: {missing}\n" and printed.out == ""


def test_static_command(monkeypatch, capsys):
    monkeypatch.setattr(static, "PROVIDERS", {"cuda": "bench.no_such_module"})
    monkeypatch.setattr(sys, "argv", ["bench", "static", "--bandwidth", "1000"])
    main()
    said = capsys.readouterr().out
    assert "no rows of backend 'cuda': bench.no_such_module cannot be imported" in said
    assert "Projection, not measured" in said and "25,557,032" in said
    # 25,557,032 parameters of 24 bytes at 1000 GB/s.
    row = static.projection_rows(1000)[0]
    assert row["fp32, projected ms"] == pytest.approx(0.613368768)


def test_issue_slots_are_in_the_report(monkeypatch):
    rows = [{"kernel": "a step", "B/param, sectors": 24.0}]
    module = types.SimpleNamespace(report_rows=list, launches=lambda *_: 1, markdown=str, slot_rows=lambda: rows)
    monkeypatch.setitem(sys.modules, "bench.stub", module)
    monkeypatch.setattr(static, "PROVIDERS", {"cuda": "bench.stub"})
    assert (static.SLOTS, rows) in static.sections(1000)


@pytest.mark.parametrize(
    "archs, h100, rtx4090", [([80, 90, 100], 90, 80), ([80, 86, 89, 120], None, 89), ([100], None, None)]
)
def test_machine_code_that_a_gpu_runs(archs, h100, rtx4090):
    assert [gpu.machine_code(archs) for gpu in gpu_model.GPUS] == [h100, rtx4090]


def test_launches_of_a_step_are_known_for_every_backend_and_rule():
    pytest.importorskip("triton")
    rows = static.launch_rows()
    assert {(row["model"], row["rule"]) for row in rows} == {(m, r) for m in static.MODELS for r in baselines.TORCH}
    # Llama-3-70B does not fit into the parameters of one launch.
    assert [row["ours, cuda"] for row in rows] == ["1"] * 4 + ["2"] * 2
    assert {row["ours, triton"] for row in rows} == {"1"}
