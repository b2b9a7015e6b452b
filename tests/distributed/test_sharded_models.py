"""Models under FSDP2, HSDP and tensor parallelism train as one process does."""

import model_worker
import pytest
from cases import with_backends
from helpers import assert_same_bits

STEPS = {
    "sgd": ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "uniform noise": ("adam", {"noise": "uniform", "noise_std": 0.1}),
    "noise of each filter": ("sgd", {"noise": "uniform", "noise_scale": "filter", "max_grad_norm": 0.5}),
    "lamb": ("lamb", {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("layout", "backend"), with_backends(model_worker.LAYOUTS, "fsdp and tp"))
def test_trains_as_one_process(processes, backend, layout, step):
    """Each process compares; here: that all processes hold the same whole parameters, replicas included."""
    first, *others = processes(4).run(model_worker.train_beside_whole, layout, *STEPS[step], backend)
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize("layout", ["fsdp", "hsdp", "tp", "fsdp and tp"])
def test_evaluation_between_steps(processes, layout):
    for losses in processes(4).run(model_worker.evaluate_between_steps, layout, "reference"):
        for sharded in losses:
            assert sharded[:3] == pytest.approx(sharded[3:], rel=1e-5)
            assert len({round(loss, 4) for loss in sharded[3:]}) == 3


@pytest.mark.parametrize("layout", ["fsdp", "hsdp"])
def test_overflow_on_one_process_is_skipped_by_all(processes, backend, layout):
    for steps, scale in processes(4).run(model_worker.skip_overflow, layout, backend):
        assert set(steps) == {2} and scale == 512


@pytest.mark.parametrize("layout", ["fsdp", "tp"])
def test_refuses_local_gradients(processes, backend, layout):
    for message in processes(4).run(model_worker.local_gradient, layout, backend):
        assert "all workers share one extrapolated point" in message
