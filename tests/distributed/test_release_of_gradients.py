"""Gradient release under FSDP2 and DDP gives the bits of a run without it, in two processes."""

import pytest
import release_worker

OPTIONS = {
    "sgd": {"momentum": 0.9, "noise": "uniform", "noise_scale": "filter"},
    "lamb": {},
    "adamw": {},
}


@pytest.mark.parametrize(("rule", "accumulate"), [("sgd", 1), ("lamb", 1), ("adamw", 2)])
def test_fsdp(processes, backend, rule, accumulate):
    """All gradients are gone when backward ends. LAMB and the noise take norms of shards in the midst of backward."""
    train = release_worker.train_beside_plain
    for early, count in processes(2).run(train, "fsdp", rule, backend, OPTIONS[rule], accumulate=accumulate):
        assert early == count


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("views", [False, True])
def test_ddp(processes, backend, views, accumulate):
    """Averaged gradients are stepped, some before step(): how many depends on how fast they are averaged."""
    train = release_worker.train_beside_plain
    ddp = {"gradient_as_bucket_view": views}
    for early, count in processes(2).run(train, "ddp", "sgd", backend, OPTIONS["sgd"], ddp, accumulate):
        assert 0 <= early < count


def test_ddp_refusals(processes):
    for unused, static, hooked, second in processes(2).run(release_worker.refusals):
        assert "find_unused_parameters" in unused and "find_unused_parameters" in static
        assert "communication hook of DDP" in hooked
        assert "got a second gradient in one step" in second
