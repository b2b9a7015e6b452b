"""CPU offload under DDP gives the bits of a run without it, in two processes; FSDP2 is refused."""

import offload_worker
import pytest

OPTIONS = {"momentum": 0.9, "noise": "uniform", "noise_scale": "filter"}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("views", [False, True])
def test_averaged_gradients_cross_in_step(processes, views, accumulate):
    train = offload_worker.train_beside_plain
    for log in processes(2).run(train, "sgd", OPTIONS, {"gradient_as_bucket_view": views}, accumulate):
        copies = [line.split()[0] for line in log if not line.startswith("host")]
        assert copies == sorted(copies) and len(set(copies)) == 2, "all downloads begin in step(), before its uploads"


def test_refusals(processes):
    for of_fsdp, of_local_gradients in processes(2).run(offload_worker.refusals):
        assert "is a DTensor" in of_fsdp and "CPUOffloadPolicy()" in of_fsdp
        assert "optimizer.local_gradients are on the accelerator" in of_local_gradients
