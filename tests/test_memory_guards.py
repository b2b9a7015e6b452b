"""No kernel touches a byte outside its tensors.

Each tensor lies against a page that may not even be read, before it or behind it, so that a stray access kills the
process; the rest of its own pages holds a pattern that must survive.
"""

import ctypes
import math
import mmap

import helpers
import pytest
import torch

from extrap_kernels import _C

PAGE = mmap.PAGESIZE
PATTERN = 0xA5
SIZES = (1, 3, 15, 16, 17, 63, 64, 65, 257, 32768 + 3)


# The native kernels with each instruction set, and the other backends, which have none to choose from.
KERNELS = [
    pytest.param((backend, instruction_set), id="-".join(filter(None, (backend, instruction_set))))
    for backend in [name for name in helpers.ON_CPU if name != "reference"]
    for instruction_set in (_C.instruction_sets() if backend == "cpu" else [None])
]


@pytest.fixture(params=KERNELS)
def kernels(request, native):
    backend, instruction_set = request.param
    if instruction_set:
        native.select_instruction_set(instruction_set)
    return backend


class Guarded:
    """Tensors in memory of their own; `check()` looks for changed bytes around all of them."""

    def __init__(self):
        self._surroundings = []

    def place(self, tensor, against_start, gap):
        """Copy `tensor` to `gap` bytes, any number, from the guard page before it (against_start) or behind it."""
        size = tensor.numel() * tensor.element_size()
        inner = math.ceil((size + gap) / PAGE) * PAGE
        memory = mmap.mmap(-1, inner + 2 * PAGE)
        everything = torch.frombuffer(memory, dtype=torch.uint8)
        everything.fill_(PATTERN)
        start = PAGE + (gap if against_start else inner - size - gap)
        placed = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start)
        placed = placed.as_strided(tensor.shape, tensor.stride())
        placed.copy_(tensor)
        self._surroundings += [everything[PAGE:start], everything[start + size : PAGE + inner]]
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for guard in (0, PAGE + inner):
            assert protect(everything.data_ptr() + guard, PAGE, 0) == 0, ctypes.get_errno()
        return placed

    def check(self):
        assert all((bytes_ == PATTERN).all() for bytes_ in self._surroundings)


def build(backend, dtype, numels, place, options):
    """An optimizer whose parameters and state `place` has put somewhere."""
    sources = [torch.linspace(-1, 1, n).to(dtype) for n in numels]
    sources += [torch.linspace(-1, 1, 35).to(dtype).view(7, 5).t(), torch.linspace(-1, 1, 48).to(dtype).view(4, 12)]
    params = [torch.nn.Parameter(place(source)) for source in sources]
    optimizer = helpers.RULES["sgd"].optimizer(params, lr=0.1, momentum=0.9, backend=backend, **options)
    helpers.train(optimizer, steps=1)
    for p in params:
        state = optimizer.state[p]
        state.update({name: place(value) if name != "step" else value for name, value in state.items()})
    return optimizer, params


def check_guarded(backend, dtype, numels, against_start, gap, options):
    """Two steps of guarded tensors are those of free ones, read the gradients only, and touch nothing else."""
    guarded = Guarded()

    def place(tensor):
        return guarded.place(tensor, against_start, int(gap * tensor.element_size()))

    optimizer, params = build(backend, dtype, numels, place, options)
    free, free_params = build(backend, dtype, numels, torch.clone, options)
    for t in range(2):
        for k, (p, q) in enumerate(zip(params, free_params)):
            q.grad = torch.empty_like(q).copy_(helpers.random_like(q, 100 * t + k))
            p.grad = place(q.grad)
        for each in (optimizer, free):
            if options["extrapolation"] == "extragradient":
                each.extrapolate()
            each.step()
        helpers.assert_same_bits([p.grad for p in params], [q.grad for q in free_params])
    guarded.check()
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(free))


OPTIONS = helpers.PERTURBATIONS[::9] + helpers.PERTURBATIONS[2:4]
OPTIONS += [{"extrapolation": along, "extrap_norm": "global"} for along in ("momentum", "past_gradient")]
# Each dtype with all options: right before the page behind, and somewhere else, which takes turns.
PLACES = [(True, 0), (True, 1), (True, 3), (False, 5)]
CASES = [
    (dtype, options, *place)
    for d, dtype in enumerate(helpers.DTYPES)
    for k, options in enumerate(OPTIONS)
    for place in [(False, 0), PLACES[(d + k) % len(PLACES)]]
]
SPLIT_BASES = [{**options, "state_dtype": torch.bfloat16} for options in OPTIONS[::2]]
CASES += [
    (dtype, options, *place)
    for dtype in (torch.bfloat16, torch.float16)
    for k, options in enumerate(SPLIT_BASES)
    for place in [(False, 0), PLACES[k % len(PLACES)]]
]


@pytest.mark.parametrize("dtype, options, against_start, gap", CASES, ids=helpers.describe)
def test_nothing_outside_is_touched(kernels, dtype, options, against_start, gap):
    check_guarded(kernels, dtype, SIZES, against_start, gap, options)


@pytest.mark.parametrize("options", [*helpers.PERTURBATIONS[:2], SPLIT_BASES[0]], ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("against_start, gap", [(True, 0), (False, 0), (True, 1), (True, 5.5)])
def test_stores_past_the_caches_touch_nothing_outside(kernels, dtype, options, against_start, gap):
    """Without a gap the first size fills its pages, so that both of its ends lie against a guard."""
    check_guarded(kernels, dtype, ((1 << 22) // dtype.itemsize, *SIZES, 32768 * 3 + 5), against_start, gap, options)


def test_guards_see_a_changed_byte():
    guarded = Guarded()
    placed = guarded.place(torch.zeros(3), True, 4)
    guarded.check()
    ctypes.memset(placed.data_ptr() + placed.nbytes, 0, 1)
    with pytest.raises(AssertionError):
        guarded.check()
