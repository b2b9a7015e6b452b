"""Every step reads its tensors anew, whatever was done to them since the last one, and holds them until it is done.

Memory that must not be written to lies in tensors made right after other memory was freed, of the same size.
"""

import math
import sys
import threading

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdam, ExtrapSGD

N = 1000
NATIVE = [name for name in helpers.BACKENDS if name in ("cpu", "cuda-emulated")]


@pytest.fixture(params=NATIVE)
def native_backend(request):
    return request.param


def make(backend, count=3, numel=N, optimizer_type=ExtrapSGD, **options):
    """An optimizer that has taken two steps."""
    params = [torch.nn.Parameter(torch.linspace(-1, 1, numel) + k) for k in range(count)]
    optimizer = optimizer_type(params, backend=backend, **{"lr": 0.1, **options})
    for _ in range(2):
        step(optimizer)
    return optimizer, params


def step(optimizer):
    for k, p in enumerate(helpers.parameters_of(optimizer)):
        p.grad = torch.full_like(p, 1.0 + k)
    optimizer.step()


class Bystanders:
    """Tensors in the memory that was freed last."""

    def __init__(self, *shapes, count=20):
        self.tensors = [torch.full(shape, 7.0) for shape in shapes for _ in range(count)]

    def check(self):
        assert all((t == 7.0).all() for t in self.tensors)


def share_memory(tensor):
    tensor.share_memory_()


def assign_data(tensor):
    tensor.data = tensor.data.clone()


def set_storage(tensor):
    tensor.set_(tensor.clone())


def resize_storage(tensor):
    kept, storage = tensor.clone(), tensor.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    tensor.copy_(kept)


MOVES = [share_memory, assign_data, set_storage, resize_storage]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("name", ["step", "base", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_state_that_was_given_other_memory(native_backend, which, name, move):
    optimizer, params = make(native_backend, optimizer_type=ExtrapAdam)
    twin, _ = make(native_backend, optimizer_type=ExtrapAdam)
    move(optimizer.state[params[which]][name])
    bystanders = Bystanders((N,), ())
    for _ in range(2):
        step(optimizer)
        step(twin)
    bystanders.check()
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_parameters_that_were_given_other_memory(native_backend, which, move):
    optimizer, params = make(native_backend)
    twin, _ = make(native_backend)
    with torch.no_grad():
        move(params[which])
    bystanders = Bystanders((N,))
    for _ in range(2):
        step(optimizer)
        step(twin)
    bystanders.check()
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


@pytest.mark.parametrize("extrapolation", [None, "past_gradient"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype_at_the_same_address(native_backend, dtype, extrapolation):
    """As the reference has it, from the first step in the new dtype on."""
    runs = []
    for backend in (native_backend, "reference"):
        memory = torch.full((2 * N,), 7.0, dtype=torch.float64)
        p = torch.nn.Parameter(memory.view(torch.float32)[:N])
        p.data.copy_(torch.linspace(-1, 1, N))
        optimizer = ExtrapSGD([p], lr=0.1, extrapolation=extrapolation, backend=backend)
        for _ in range(2):
            step(optimizer)
        p.grad = None
        p.data = memory.view(dtype)[:N].copy_(p.data.clone())
        assert p.data_ptr() == memory.data_ptr()
        for _ in range(2):
            step(optimizer)
        assert (memory[N:] == 7.0).all()
        runs.append(helpers.snapshot(optimizer))
    helpers.assert_same_bits(*runs)


def test_half_of_the_memory_at_the_same_address(native_backend):
    """Offloaded, and loaded again in half the bytes: what follows them belongs to somebody else."""
    optimizer, params = make(native_backend, count=1, numel=20_000)
    p = params[0]
    p.grad = None
    kept, p.data = p.data.bfloat16(), torch.empty(0)
    back = torch.empty(20_000, dtype=torch.bfloat16)
    p.data = back.copy_(kept)
    bystanders = Bystanders((10_000,), count=4)
    step(optimizer)
    bystanders.check()


@pytest.mark.parametrize("as_param", [True, False], ids=["gradient_as_param", "contiguous_gradient"])
@pytest.mark.parametrize("which", [0, 1])
def test_other_strides_at_the_same_address(backend, which, as_param):
    """A square matrix replaced by its transposed view: x is transposed, and the momentum is not."""
    gradient = torch.arange(16.0, device=helpers.DEVICES[backend]).view(4, 4)
    params = [torch.nn.Parameter(torch.zeros_like(gradient)) for _ in range(2)]
    optimizer = ExtrapSGD(params, lr=1.0, extrapolation=None, momentum=0.5, backend=backend)
    for t in range(3):
        for p in params:
            p.grad = gradient.t().contiguous().t() if as_param and t > 0 else gradient
        optimizer.step()
        if t == 0:
            params[which].grad = None
            params[which].data = params[which].data.t()
    later = 1.5 * gradient + 1.75 * gradient
    assert torch.equal(params[which], -(gradient.t() + later))
    assert torch.equal(params[1 - which], -(gradient + later))


# Keys


def rename_in_place(state):
    items = list(state.items())
    state.clear()
    state.update({"x" + name: value for name, value in items})


def remove_step(state):
    del state["step"]


def remove_buffer(state):
    del state["momentum_buffer"]


def reorder(state):
    items = list(state.items())
    state.clear()
    state.update(reversed(items))


@pytest.mark.parametrize("change", [rename_in_place, remove_step, remove_buffer, reorder])
@pytest.mark.parametrize("which", [0, 1])
def test_keys_that_were_changed_in_place(native_backend, which, change):
    """What is missing is created, as for a parameter without state."""
    optimizer, params = make(native_backend, momentum=0.9)
    twin, twins = make("reference", momentum=0.9)
    for o, p in ((optimizer, params[which]), (twin, twins[which])):
        change(o.state[p])
        step(o)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


def test_exchanged_keys(native_backend):
    optimizer, params = make(native_backend, momentum=0.9)
    state = optimizer.state[params[1]]
    base, buffer = state["base"], state["momentum_buffer"]
    state["base"], state["momentum_buffer"] = buffer, base
    before = [t.clone() for t in (base, buffer)]
    step(optimizer)
    torch.testing.assert_close(state["momentum_buffer"], 0.9 * before[0] + 2.0)
    torch.testing.assert_close(state["base"], before[1] - 0.1 * state["momentum_buffer"])


# What cannot be stepped


def resize_to_nothing(tensor):
    tensor.untyped_storage().resize_(0)


def shrink(tensor):
    tensor.untyped_storage().resize_(4)


@pytest.mark.parametrize("spoil", [resize_to_nothing, shrink])
@pytest.mark.parametrize("which", [0, 1])
def test_state_without_its_memory(native_backend, which, spoil):
    optimizer, params = make(native_backend)
    before = [p.detach().clone() for p in params]
    spoil(optimizer.state[params[which]]["base"])
    with pytest.raises(ValueError, match=rf"state 'base' of parameter {which} of group 0 \(shape \({N},\)\) has fewer"):
        step(optimizer)
    assert all(torch.equal(p, q) for p, q in zip(params, before))


def test_parameter_without_its_memory(native_backend):
    optimizer, params = make(native_backend)
    params[1].untyped_storage().resize_(0)
    for p in params:
        p.grad = torch.ones(N)
    with pytest.raises(ValueError, match="parameter 1 of group 0 .* has fewer bytes"):
        optimizer.step()


def test_gradient_without_its_memory(native_backend):
    optimizer, params = make(native_backend)
    for p in params:
        p.grad = torch.ones(N)
    params[2].grad.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="the gradient of parameter 2 of group 0 .* has fewer bytes"):
        optimizer.step()


def test_state_of_another_shape(native_backend):
    optimizer, params = make(native_backend)
    optimizer.state[params[1]]["base"] = torch.zeros(1)
    with pytest.raises(ValueError, match="state 'base' of parameter 1 of group 0 .* has another shape"):
        step(optimizer)


@pytest.mark.parametrize("wrong", [5.0, None, torch.zeros(2), torch.zeros((), dtype=torch.int64)], ids=str)
def test_step_that_is_no_count(native_backend, wrong):
    optimizer, params = make(native_backend)
    optimizer.state[params[1]]["step"] = wrong
    before = [p.detach().clone() for p in params]
    with pytest.raises((ValueError, AttributeError)):
        step(optimizer)
    assert all(torch.equal(p, q) for p, q in zip(params, before))


@pytest.mark.parametrize("count", [1e30, math.nan, math.inf, -1.0, -5.0, 2.0**32])
@pytest.mark.parametrize("group", [0, 1])
def test_step_counts_that_do_not_fit(native_backend, group, count):
    """The noise takes a count of 32 bits. Nothing has changed after the error."""
    params = [torch.nn.Parameter(torch.zeros(16)) for _ in range(3)]
    optimizer = ExtrapSGD([{"params": params[:1]}, {"params": params[1:]}], noise="uniform", backend=native_backend)
    step(optimizer)
    bad = params[2 * group]
    optimizer.state[bad]["step"].fill_(count)
    before = helpers.snapshot(optimizer)
    with pytest.raises(
        ValueError, match=rf"state 'step' of parameter {group} of group {group} .* it must count the steps"
    ):
        step(optimizer)
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


def test_largest_step_count(native_backend):
    optimizer, params = make(native_backend)
    optimizer.state[params[0]]["step"].fill_(2.0**32 - 512)  # the largest that float32 has below 2^32
    step(optimizer)


# Gradients


class ComputedGradient(torch.nn.Parameter):
    """A gradient that is there only for as long as its reader holds it."""

    @property
    def grad(self):
        return torch.full((4096,), 1.0)


def test_computed_gradients(backend):
    params = [ComputedGradient(torch.zeros(4096, device=helpers.DEVICES[backend])) for _ in range(3)]
    if params[0].device.type != "cpu":
        pytest.skip("the gradient is on the CPU")
    optimizer = ExtrapSGD(params, lr=1.0, extrapolation=None, backend=backend)
    for _ in range(3):
        optimizer.step()
    assert all((p == -3.0).all() for p in params)


class MeddlingGradient(torch.nn.Parameter):
    """Its gradient is computed by code that gives another parameter other memory."""

    victim = None

    @property
    def grad(self):
        if self.victim is not None:
            self.victim.data = self.victim.data.clone()
        return torch.ones(N)


def test_gradients_whose_computation_moves_tensors(native_backend):
    first, second = torch.nn.Parameter(torch.zeros(N)), MeddlingGradient(torch.zeros(N))
    second.victim = first
    optimizer = ExtrapSGD([first, second], lr=1.0, extrapolation=None, backend=native_backend)
    for _ in range(3):
        first.grad = torch.ones(N)
        optimizer.step()
    assert (first == -3.0).all() and (second == -3.0).all()


class SteppingGradient(torch.nn.Parameter):
    """Its gradient is computed by code that takes a step."""

    optimizer = None

    @property
    def grad(self):
        if self.optimizer is not None:
            self.optimizer.step()
        return torch.ones(N)


def test_a_step_within_a_step_is_refused(native_backend):
    param = SteppingGradient(torch.zeros(N))
    optimizer = ExtrapSGD([param], lr=1.0, extrapolation=None, backend=native_backend)
    optimizer.step()
    param.optimizer = optimizer
    with pytest.raises((RuntimeError, RecursionError)):
        optimizer.step()


def test_every_step_is_refused_until_the_running_one_has_returned(native_backend):
    """A refused one must not make plans that the next one could run."""
    optimizer, _ = make(native_backend)
    twin, _ = make(native_backend)
    executor = optimizer.stepper._plans[0, None].executors[0]
    run = executor.run

    def try_to_step_before(launch):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="running already"):
                optimizer.step()
        run(launch)

    executor.run = try_to_step_before
    step(optimizer)
    del executor.run
    step(twin)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


@pytest.mark.parametrize("pattern", [1, 2, 3])
def test_absent_gradients_are_skipped(native_backend, pattern):
    """The plan stays, and a parameter without a gradient stays as it is."""
    optimizer, params = make(native_backend, momentum=0.9, numel=33)
    twin, twins = make("reference", momentum=0.9, numel=33)
    plan = optimizer.stepper._plans[0, None]
    for t in range(6):
        for k, (p, q) in enumerate(zip(params, twins)):
            present = (t >> k) & pattern
            p.grad = torch.full_like(p, 1.0 + t) if present else None
            q.grad = torch.full_like(q, 1.0 + t) if present else None
        optimizer.step()
        twin.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))
    assert optimizer.stepper._plans[0, None] is plan


def test_nothing_is_held_after_a_step(native_backend):
    """Or zero_grad() would free no memory."""
    optimizer, params = make(native_backend)
    tensors = [t for p in params for t in (p.grad, *optimizer.state[p].values())]
    before = [sys.getrefcount(t) for t in tensors]
    optimizer.step()
    assert [sys.getrefcount(t) for t in tensors] == before


# Threads


def step_beside(optimizer, action, rounds=6):
    """Take steps in another thread; `action` runs in this one again and again once the tensors of a step are bound.

    Not before: torch crashes by itself where one thread reads p.grad while another one sets it to None.
    """
    params, errors = helpers.parameters_of(optimizer), []
    for _ in range(rounds):
        for p in params:
            p.grad = torch.ones_like(p)
        executor = optimizer.stepper._plans[0, None].executors[0]
        bound, run = threading.Event(), type(executor).run

        def run_and_tell(launch, executor=executor, bound=bound, run=run):
            bound.set()
            run(executor, launch)

        def take_step(bound=bound):
            try:
                optimizer.step()
            except Exception as error:
                errors.append(error)
                bound.set()

        executor.run = run_and_tell
        thread = threading.Thread(target=take_step)
        thread.start()
        bound.wait()
        while thread.is_alive():
            action()
        thread.join()
        del executor.run
    return errors


def test_gradients_dropped_by_another_thread(threads):
    """torch's optimizers hold the gradients for the length of a step, too."""
    threads(1)
    optimizer, params = make("cpu", numel=3_000_000, extrapolation=None, lr=1.0)
    with torch.no_grad():
        for p in params:
            p.zero_()
    taken = []

    def drop():
        optimizer.zero_grad()
        taken.append([torch.full((3_000_000,), 7.0) for _ in params])
        del taken[:-1]

    assert step_beside(optimizer, drop) == []
    assert all((p == -6.0).all() for p in params)


def test_state_loaded_by_another_thread():
    optimizer, params = make("cpu", numel=300_000, momentum=0.9)
    saved = optimizer.state_dict()

    step(optimizer)
    for _ in range(3):
        assert step_beside(optimizer, lambda: optimizer.load_state_dict(saved), rounds=1) == []
        step(optimizer)
    assert all(p.isfinite().all() for p in params)


def test_two_threads_step_the_same_optimizer():
    """One of them may be refused; both leave memory alone that is not theirs."""
    optimizer, params = make("cpu", numel=3_000_000)
    bystanders = Bystanders((3_000_000,), count=3)
    refused = []

    def step_too():
        try:
            optimizer.step()
        except RuntimeError as error:
            refused.append(error)

    for _ in range(20):  # until the two have met
        assert step_beside(optimizer, step_too, rounds=1) == []
        if refused:
            break
    assert refused
    assert all("step() of this optimizer is running already" in str(error) for error in refused)
    bystanders.check()
    assert all(p.isfinite().all() for p in params)


def test_two_optimizers_step_at_the_same_time(threads):
    """Each in a thread of its own, with threads of the kernels besides; they share nothing that a step changes."""
    threads(2)
    (first, _), (second, _), (alone, _) = (make("cpu", numel=300_000, max_grad_norm=1.0) for _ in range(3))
    others = [threading.Thread(target=lambda o=o: [step(o) for _ in range(5)]) for o in (first, second)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    for _ in range(5):
        step(alone)
    for optimizer in (first, second):
        helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(alone))
