"""What the native core reads of torch's tensors, by torch's stable C interface or by attributes."""

import pytest
import torch

from extrap_kernels import _C, ExtrapSGD


@pytest.fixture(params=[True, False], ids=["stable", "attributes"])
def reading(request, native):
    native.testing.read_by_stable_interface(request.param)
    if native.reads_by_stable_interface() != request.param:
        pytest.skip("this torch lacks torch's stable C interface")


class OwnGradient(torch.nn.Parameter):
    """Its gradient is not where torch keeps it."""

    grad = property(lambda self: self.own, lambda self, value: setattr(self, "own", value))
    own = None


class Plain(torch.nn.Parameter):
    """A subclass that changes nothing."""


class Shell(torch.Tensor):
    """A wrapper, which has no memory of its own; operations work on what it wraps."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        inner = [a.inner if isinstance(a, Shell) else a for a in args]
        return function(*inner, **(kwargs or {}))


def test_this_torch_has_the_stable_interface():
    """Else every step would be slow, and nothing else would show it."""
    assert _C.reads_by_stable_interface()


@pytest.mark.parametrize("kind", [torch.nn.Parameter, Plain, OwnGradient])
def test_subclasses_of_parameters(reading, kind):
    param = kind(torch.tensor([1.0, 2.0]))
    optimizer = ExtrapSGD([param], lr=0.5, extrapolation=None)
    for _ in range(2):
        param.grad = torch.tensor([1.0, -1.0])
        optimizer.step()
    assert param.tolist() == [0.0, 3.0]


def test_gradient_without_memory_of_its_own(reading):
    """What a wrapper stands for is copied, never read at the address of its empty shell."""
    param = OwnGradient(torch.tensor([1.0, 2.0]))
    optimizer = ExtrapSGD([param], lr=0.5, extrapolation=None)
    for gradient in (torch.tensor([1.0, -1.0]), Shell(torch.tensor([1.0, -1.0]))):
        param.grad = gradient
        optimizer.step()
    assert param.tolist() == [0.0, 3.0]


def stepped(param, optimizer):
    param.grad = torch.ones_like(param)
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.nn.Parameter, Plain])
def test_autograd_notices_every_step(reading, kind):
    """Also after the parameter was given other memory, and for what was saved before that."""
    param = kind(torch.tensor([1.0, 2.0]))
    optimizer = ExtrapSGD([param], lr=0.5)
    for storage in (param.data, param.data.clone(), param.data):
        param.data = storage
        version = param._version
        saved = (param**3).sum()
        stepped(param, optimizer)
        assert param._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            saved.backward()


def test_steps_keep_no_second_reference(reading):
    """swap_tensors() refuses tensors that somebody else refers to; it is what Module.to() may be told to work by."""
    module = torch.nn.Linear(2, 1)
    optimizer = ExtrapSGD(module.parameters(), lr=0.5)
    stepped(module.weight, optimizer)
    other = torch.nn.Parameter(torch.zeros(1, 2))
    optimizer.zero_grad()
    torch.utils.swap_tensors(module.weight, other)
    optimizer.state.clear()
    stepped(module.weight, optimizer)
    assert module.weight.tolist() == [[-1.0, -1.0]]  # 0 - lr * g - extrap_lr * g


def test_optimizers_leave_no_reference(reading):
    param = torch.nn.Parameter(torch.ones(3))
    for _ in range(3):
        stepped(param, ExtrapSGD([param]))
    assert param._use_count() == 1
