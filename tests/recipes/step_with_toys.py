"""Steps with the toys of test_recipes.py on the backends named on the command line; they must give the same bits."""

import itertools
import sys

import torch

import extrap_kernels
import extrap_kernels.testing


def trained(optimizer_type, backend, **options):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(n, generator=generator)) for n in (3, 4097)]
    optimizer = optimizer_type(params, lr=0.1, backend=backend, **options)
    for _ in range(2):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    state = [value for p in params for name, value in optimizer.state[p].items() if name != "step"]
    return [p.detach() for p in params] + state


def same_bits(a, b):
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b))


def check(optimizer_type, backends, **options):
    first, *others = [trained(optimizer_type, backend, **options) for backend in backends]
    assert all(same_bits(first, other) for other in others), (optimizer_type, backends, options)
    return first


def main():
    backends = sys.argv[1:]
    directions, noises = (None, "past_gradient", "double_update"), (None, "uniform", "coin")
    for direction, noise in itertools.product(directions, noises):
        check(extrap_kernels.ExtrapSign, backends, gain=0.5, extrapolation=direction, noise=noise)
    plain, other = (check(extrap_kernels.ExtrapSign, backends, gain=gain) for gain in (1.0, 2.0))
    assert not same_bits(plain, other)
    check(extrap_kernels.ExtrapAdam, backends, state_dtype=torch.float16)
    print("stepped on", *backends)


if __name__ == "__main__":
    main()
