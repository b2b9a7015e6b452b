"""Each data-parallel worker extrapolates along its own gradient, and all keep the same base iterate."""

import ddp_worker
import oracle
import pytest
import torch
from helpers import assert_same_bits

from extrap_kernels.options import DEFAULTS

CASES = {
    "hundred steps": {"steps": 100},
    "uniform noise": {"noise": "uniform", "noise_scale": "filter"},
    "adds up under no_sync": {"accumulate": 3},
    "gradients thrown away": {"backward_per_step": 2},
    "gradient is a view of the bucket": {"ddp": {"gradient_as_bucket_view": True}},
    "static graph": {"ddp": {"static_graph": True}},
    "static graph and views": {"ddp": {"static_graph": True, "gradient_as_bucket_view": True}},
    "unused parameters": {"unused": True, "ddp": {"find_unused_parameters": True}},
    "two dtypes": {"narrow": torch.bfloat16},
    "fp16 compression": {"hook": "fp16"},
    "bf16 compression": {"hook": "bf16"},
    "PowerSGD": {"hook": "powerSGD"},
}
OPTIONS = {**DEFAULTS, **ddp_worker.SGD, "dampening": 0, "maximize": False, "decoupled_weight_decay": False}
TOLERANCE = {None: 1e-6, "fp16": 1e-3, "bf16": 1e-2}

TRAINED = {}  # each case once


@pytest.fixture(params=CASES)
def records(request, processes, backend):
    """Of two workers, each of which has compared the captured gradients with those that it computed without DDP."""
    case = {"steps": 6, "backend": backend, **CASES[request.param]}
    key = (request.param, backend)
    if key not in TRAINED:
        TRAINED[key] = processes(2).run(ddp_worker.train, **case)
    return case, TRAINED[key]


def test_workers_share_the_base_iterate_only(records):
    case, (first, second) = records
    assert_same_bits(second["base"], first["base"])
    differing = [not torch.equal(a, b) for a, b in zip(first["y"], second["y"])]
    assert sum(differing) == sum(base is not None for base in first["base"]) == len(differing) - 2 * ("unused" in case)


def test_base_hook_still_averages(records):
    case, both = records
    if case.get("hook") == "powerSGD":
        both = [{**record, "averaged": record["averaged"][:3], "local": record["local"][:3]} for record in both]
    for averaged, other, *local in zip(*(r["averaged"] for r in both), *(r["local"] for r in both)):
        for g, same, a, b in zip(averaged, other, *local):
            if g is not None:
                assert_same_bits(g, same)
                rtol = 1e-2 if g.dtype == torch.bfloat16 else TOLERANCE.get(case.get("hook"), 1e-6)
                torch.testing.assert_close(g, (a + b) / 2, rtol=rtol, atol=rtol * float(a.abs().max()))


def test_each_worker_follows_the_oracle(records):
    """The float64 oracle of one process, fed with the gradients that were gathered from the workers."""
    case, both = records
    for rank, record in enumerate(both):
        group = {**OPTIONS, **{name: case[name] for name in ("noise", "noise_scale") if name in case}}
        for index, start in enumerate(record["start"]):
            if record["base"][index] is None:
                assert all(g[index] is None for g in record["averaged"])
                continue
            expected = oracle.SGD(start, index, rank)
            for g, l in zip(record["averaged"], record["local"]):
                expected.step(group, g[index], l[index])
            oracle.assert_within(record["base"][index], expected.x, f"base {index} of rank {rank}")
            oracle.assert_within(record["y"][index], expected.y, f"y {index} of rank {rank}")


@pytest.mark.parametrize("explicit", [False, True], ids=["", "unscale_"])
def test_grad_scaler_skips_on_all_workers(processes, backend, explicit):
    """Scales are powers of two, so the bits are those of a run without a scaler that leaves the step out."""
    scaled = processes(2).run(ddp_worker.train_scaled, backend, scaled=True, explicit=explicit)
    plain = processes(2).run(ddp_worker.train_scaled, backend, scaled=False, explicit=False)
    assert_same_bits(scaled, plain)
    assert all(state["step"] == 6 for state in scaled[0]["state"])


def test_unscaling_the_average_alone_is_an_error(processes, backend):
    messages = processes(2).run(ddp_worker.unscale_averaged_only, backend)
    assert all("unscale_(scaler) of what register_local_gradient_hook() returned" in message for message in messages)


def test_uneven_inputs_end_with_the_state_of_the_last(processes, backend):
    (first, later), (second, later_second) = processes(2).run(ddp_worker.train_unevenly, backend)
    assert_same_bits(first, second)
    assert all(state["step"] == 5 for state in first["state"])
    assert_same_bits(later["state"], later_second["state"])
    assert all(not torch.equal(a, b) for a, b in zip(later["y"], later_second["y"]))


def test_extragradient_moves_along_the_own_gradient(processes, backend):
    first, second = processes(2).run(ddp_worker.train_by_closure, backend, steps=4)
    assert_same_bits(first["end"], second["end"])
    for a, b in zip(first["middle"], second["middle"]):
        assert all(not torch.equal(p, q) for p, q in zip(a, b))


def test_each_worker_ascends_by_the_norm_of_its_own_gradient(processes, backend):
    first, second = processes(2).run(ddp_worker.ascend, backend)
    assert_same_bits(first, second)


def test_refuses_what_has_no_local_gradient(processes):
    for model, zero in processes(2).run(ddp_worker.refusals):
        assert "Net; it must be a DistributedDataParallel: under FSDP" in model
        assert "ZeroRedundancyOptimizer all workers share one extrapolated point" in zero
