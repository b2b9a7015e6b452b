"""Backend `triton` and the tensors of a step: absent gradients, a base that is not stored, freed memory; its table."""

from array import array

import helpers
import pytest
import torch
from parts import entry_of, launch_of

from extrap_kernels.state.layout import StateLayout

pytestmark = pytest.mark.skipif(
    "triton" not in helpers.DEVICES, reason="needs a GPU, or TRITON_INTERPRET=1 before Python starts"
)
if "triton" in helpers.DEVICES:
    from extrap_kernels.triton_kernels import executor, tables, variants
    from extrap_kernels.triton_kernels.binding import NativeBinding
    from extrap_kernels.triton_kernels.executor import TritonExecutor
    from extrap_kernels.triton_kernels.kernels.table import TENSOR_COLUMNS
    from extrap_kernels.triton_kernels.python_binding import PythonBinding

LAYOUTS = ("three", "matrix", "empty", "columns", "offset")


@pytest.fixture(autouse=True, params=["NativeBinding", "PythonBinding"])
def _binding(request, monkeypatch):
    monkeypatch.setattr(executor, "binding_type", lambda: globals()[request.param])


RECOVERED = {"momentum": 0.9, "extrapolation": "momentum"}


@pytest.mark.parametrize(
    "rule, options", [("adam", {}), ("sgd", {"momentum": 0.9}), ("sgd", RECOVERED)], ids=helpers.describe
)
@pytest.mark.parametrize("state_dtype", [torch.float32, torch.uint8], ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_bindings_write_the_same_rows(rule, options, dtype, state_dtype):
    if state_dtype == torch.uint8:
        values = torch.zeros(5 * 64 * 128 + 1, device=helpers.DEVICES["triton"], dtype=dtype)
        params = list(values[1:].view(5, 64, 128)) + [values[: 64 * 128].view(64, 128)]
    else:
        params = helpers.zoo("triton", dtype, ("three", "matrix", "vector", "columns", "offset"))
    optimizer = helpers.RULES[rule].optimizer(params, state_dtype=state_dtype, **options)
    spec = optimizer.rule.SPEC
    layout = StateLayout.of_param(spec, optimizer.param_groups[0], params[0])
    assert layout.has_blocks is (state_dtype == torch.uint8)
    assert layout.recovers_base is (options is RECOVERED and not layout.has_blocks and dtype == torch.float32)
    assert layout.splits_base is (layout.has_blocks and dtype == torch.bfloat16)
    entries, states = map(list, zip(*(entry_of(p, i, None, layout) for i, p in enumerate(params))))
    for i, entry in enumerate(entries):
        entry.param.grad = torch.ones_like(entry.param) if i != 1 else None
    local = {entries[0].param: torch.ones_like(entries[0].param)}
    tables = []
    for binding_type in (NativeBinding, PythonBinding):
        binding = binding_type(spec, layout, entries, dtype)
        assert binding.bind(states, local) == []
        tables.append(array("q", bytes(8 * 14 * len(entries))))
        binding.write_rows(tables[-1], 1, 14)
        assert list(binding.stepped()) == [k for k in range(len(entries)) if k != 1]
    assert tables[0] == tables[1]
    exponents = [state.get(f"{name}_exponent") for name in layout.buffers for state in states[:1]]
    low = states[0].get("base_low")
    assert tables[0][5] == (0 if low is None else low.data_ptr())
    assert tables[0][11 : 11 + len(exponents)].tolist() == [0 if e is None else e.data_ptr() for e in exponents]


def steps_with_absent_gradients(backend, rule, options):
    params = helpers.zoo(backend, torch.float32, LAYOUTS)
    optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, **options)
    executors = []
    for t in range(4):
        helpers.set_gradients(params, t)
        for k, p in enumerate(params):
            # The first one has no gradient, and no state, before the third step.
            if (k == 0 and t < 2) or (k > 0 and (k + t) % 3 == 0):
                p.grad = None
        optimizer.step()
        executors.append(optimizer.stepper._plans[0, None].executors)
    assert executors[0] == executors[-1], "planned anew"
    return [tree for tree in helpers.snapshot(optimizer)]


@pytest.mark.parametrize(
    "rule, options",
    [
        ("sgd", {"momentum": 0.9, "noise": "uniform"}),
        ("sgd", RECOVERED),
        ("adamw", {"extrapolation": None, "max_grad_norm": 1e-2}),
        ("lars", {"momentum": 0.9, "max_grad_norm": 1.0}),
    ],
    ids=helpers.describe,
)
def test_tensors_without_gradients_are_skipped(rule, options):
    """By the plan that steps them once they have one; also in norms and in sums of squares."""
    expected, actual = (steps_with_absent_gradients(b, rule, options) for b in ("reference", "triton"))
    assert [int(state["step"]) for state in actual[1]] == [int(state["step"]) for state in expected[1]]
    for a, b in zip(actual[0], expected[0]):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", ["sgd", "lamb"])
def test_gradients_that_come_and_go_cost_one_copy_of_the_table(monkeypatch, rule):
    copied, write = [], tables.PinnedTable.write

    def noted_write(table, cells):
        before = table._written
        write(table, cells)
        copied.append(table._written is not before)

    monkeypatch.setattr(tables.PinnedTable, "write", noted_write)
    params = helpers.zoo("triton", torch.float32, ["three", "matrix", "empty"])
    optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend="triton")
    helpers.set_gradients(params, seed=0)
    gradients = [p.grad for p in params]
    optimizer.step()
    plan, executors = optimizer.stepper._plans[0, None], list(optimizer.stepper._plans[0, None].executors)
    for absent in [(0,), (0,), (0, 1), (), (2,), ()]:
        changes = [p.grad is None for p in params] != [i in absent for i in range(3)]
        for i, p in enumerate(params):
            p.grad = None if i in absent else gradients[i]
        copied.clear()
        optimizer.step()
        assert copied == [changes], absent
    assert optimizer.stepper._plans[0, None] is plan and list(plan.executors) == executors, "planned anew"


@pytest.mark.parametrize("numels", [[10**8], [768 * 3072] * 48], ids=["one", "many"])
def test_tables_are_small(numels):
    """In bytes a parameter: of the chunks, and of the rows of the tensors."""
    programs = len(tables.chunks(numels, variants.compiled_tiling(32).chunk))
    assert (8 * programs + 8 * TENSOR_COLUMNS.value * len(numels)) / sum(numels) < 0.0012


def test_chunks_have_the_bits_of_a_whole(monkeypatch):
    """Three of them, of which the last one is 3 elements that are left over."""
    monkeypatch.setattr(variants, "interpreter_tiling", lambda _: variants.Tiling(1024, 10240, 1024, num_warps=4))
    results = []
    for backend in ("reference", "triton"):
        param = torch.nn.Parameter(torch.linspace(-1, 1, 20003, device=helpers.DEVICES[backend]))
        optimizer = helpers.RULES["sgd"].optimizer([param], lr=0.1, momentum=0.9, noise="uniform", backend=backend)
        helpers.train(optimizer, steps=2)
        results.append(param.detach().cpu())
    helpers.assert_same_bits(*results)


@pytest.mark.parametrize("rule", ["sgd", "lamb"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=helpers.describe)
def test_no_base_where_the_parameter_holds_it(rule, dtype):
    results = []
    for backend in ("reference", "triton"):
        params = helpers.zoo(backend, dtype, LAYOUTS)
        optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, extrapolation=None, backend=backend)
        helpers.train(optimizer, steps=2)
        assert all("base" not in optimizer.state[p] for p in params)
        results.append([p.detach().cpu() for p in params])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["base", "momentum_buffer", "gradient"])
def test_freed_memory_is_an_error(name):
    (param,) = helpers.zoo("triton", torch.float32, ["vector"])
    optimizer = helpers.RULES["sgd"].optimizer([param], lr=0.1, momentum=0.9, backend="triton")
    helpers.train(optimizer, steps=1)
    tensor = param.grad if name == "gradient" else optimizer.state[param][name]
    before = param.detach().clone()
    tensor.untyped_storage().resize_(0)
    what = "the gradient" if name == "gradient" else f"state '{name}'"
    with pytest.raises(ValueError, match=f"{what} of parameter 0 .*has fewer bytes in its storage"):
        optimizer.step()
    assert torch.equal(param, before)


def exponents_of_a_step():
    """An optimizer after a step, and the state of its parameter, which is in blocks."""
    param = torch.nn.Parameter(torch.ones(64, 64, device=helpers.DEVICES["triton"]))
    optimizer = helpers.RULES["sgd"].optimizer(
        [param], lr=0.1, momentum=0.9, backend="triton", state_dtype=torch.uint8, extrapolation=None
    )
    helpers.train(optimizer, steps=1)
    return optimizer, optimizer.state[param]


def test_freed_exponents_are_an_error():
    optimizer, state = exponents_of_a_step()
    state["momentum_buffer_exponent"].untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="momentum_buffer_exponent.* of parameter 0 .*has fewer bytes in its storage"):
        optimizer.step()


def test_exponents_may_be_exchanged():
    """Where they are in a checkpoint that was loaded, say."""
    (optimizer, state), (other, _) = exponents_of_a_step(), exponents_of_a_step()
    state["momentum_buffer_exponent"] = state["momentum_buffer_exponent"].clone()
    for each in (optimizer, other):
        helpers.train(each, steps=1, seed=5)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(other))


def test_incomplete_state_is_reported():
    optimizer = helpers.RULES["sgd"].optimizer([torch.zeros(1)], lr=0.1, momentum=0.9)
    group, spec = optimizer.param_groups[0], optimizer.rule.SPEC
    layout = StateLayout.of(spec, group, torch.float32)
    pairs = [entry_of(torch.ones(4, device=helpers.DEVICES["triton"]), i, None, layout) for i in range(3)]
    entries, states = map(list, zip(*pairs))
    for entry in entries:
        entry.param.grad = torch.ones_like(entry.param)
    executor = TritonExecutor(spec, layout, entries, torch.float32)
    assert executor.bind(states, {}) == []
    del states[0]["momentum_buffer"]
    states[2]["base"] = states[2]["base"].double()
    assert executor.bind(states, {}) == [0, 2]
    for i in (0, 2):
        layout.prepare(states[i], entries[i].param, executor.device)
    assert executor.bind(states, {}) == []
    executor.run(launch_of(group, executor))
    assert all(float(state["step"]) == 1 for state in states)
    entries[1].param.data = torch.ones(5, device=executor.device)
    assert executor.bind(states, {}) is None


def test_captured_tables(monkeypatch):
    """A graph copies the version that it was captured with; memory for more than a few must be had in between."""
    table = tables.PinnedTable(2, torch.device("cpu"))
    monkeypatch.setattr(table, "_host", lambda: torch.empty(2, dtype=torch.int64))
    table._pinned = True
    versions = [array("q", [k, -k]) for k in range(table.SPARE + 1)]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    table.write(versions[0])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for cells in [*versions[: table.SPARE], versions[0]]:
        table.write(cells)
        assert table.on_device.tolist() == cells.tolist()
    with pytest.raises(RuntimeError, match="call step.. once outside of a graph"):
        table.write(versions[-1])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    table.on_device.zero_()  # as a replay might
    table.write(versions[0])
    assert table.on_device.tolist() == versions[0].tolist()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    table.write(versions[-1])
    assert table.on_device.tolist() == versions[-1].tolist()
