"""torch.distributed.checkpoint: the same bits after a resume, whatever the number of processes and the mode."""

import checkpoint_worker as worker
import pytest
import torch
from helpers import assert_same_bits

MODES = pytest.mark.parametrize("evaluating", [False, True], ids=["train", "eval"])


@MODES
@pytest.mark.parametrize("perturbation", [{"noise": "uniform"}, {"extrapolation": "momentum"}], ids=str)
def test_resharding_four_two_four(processes, backend, tmp_path, evaluating, perturbation):
    """Of two rules, each with each backend and in each mode."""
    rule = "sgd" if (backend == "cpu") == evaluating else "adamw"
    options = {**perturbation, **({"momentum": 0.9} if rule == "sgd" else {})}
    how = {"layout": "fsdp", "rule": rule, "backend": backend, "options": options, "evaluating": evaluating}
    undisturbed = processes(4).run(worker.sharded_segment, 0, 6, source=None, target=None, **how)
    stops = [None, tmp_path / "two", tmp_path / "four", None]
    for i, count in enumerate((4, 2, 4)):
        ends = {"source": stops[i], "target": stops[i + 1]}
        resumed = processes(count).run(worker.sharded_segment, 2 * i, 2 * i + 2, **ends, **how)
    assert_same_bits(resumed, undisturbed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@MODES
def test_resharding_blocks(processes, backend, tmp_path, evaluating, dtype):
    """Codes and their exponents, and the halves of a base in 24 bits.

    Three processes only load: the mean of their gradients would be another one.
    """
    options = {"state_dtype": torch.uint8, "noise": "uniform"}
    how = {"layout": "fsdp", "rule": "adamw", "backend": backend, "options": options, "width": 64, "dtype": dtype}
    how["evaluating"] = evaluating
    undisturbed = processes(4).run(worker.sharded_segment, 0, 4, source=None, target=None, **how)
    processes(4).run(worker.sharded_segment, 0, 2, source=None, target=tmp_path / "two", **how)
    resumed = processes(2).run(worker.sharded_segment, 2, 4, source=tmp_path / "two", target=tmp_path / "three", **how)
    assert_same_bits(resumed, undisturbed[:2])
    loaded = processes(3).run(worker.sharded_segment, 4, 4, source=tmp_path / "three", target=None, **how)
    assert_same_bits(loaded, undisturbed[:3])
    assert any(value.dtype == torch.uint8 for value in loaded[0][1])


@MODES
@pytest.mark.parametrize(
    "options",
    [{"noise": "gaussian"}, {"extrap_lr": 0.5}, {"extrapolation": "extragradient"}],
    ids=["noise", "extrap_lr", "extragradient"],
)
def test_state_that_the_helpers_make(processes, backend, options, evaluating):
    names = ("base", "exp_avg", "exp_avg_sq") + ("extrapolated",) * evaluating + ("step",)
    for made in processes(2).run(worker.state_made_by_helpers, options, backend, evaluating):
        assert made == {"unmoved": True, "names": {names}, "steps": {0.0}}


def test_full_state_dicts(processes, backend):
    for sharded, alone, again in processes(2).run(worker.full_state_dict_round_trip, backend):
        assert_same_bits(alone, sharded)
        assert_same_bits(again, sharded)


@MODES
def test_killed_worker_and_resume(processes, backend, tmp_path, evaluating):
    """Rank 1 dies two steps after the checkpoint; a new pair of workers ends with the bits of an undisturbed run."""
    how = {"evaluating": evaluating, "backend": backend}
    undisturbed = processes(2).run(worker.ddp_segment, 0, 7, source=None, target=None, **how)
    with pytest.raises(RuntimeError, match="rank 1 died"):
        processes(2).run(worker.ddp_segment, 0, 7, source=None, target=tmp_path / "saved", die_at=4, **how)
    resumed = processes(2).run(worker.ddp_segment, 2, 7, source=tmp_path / "saved", target=None, **how)
    assert_same_bits(resumed, undisturbed)


def test_points_in_a_larger_job(processes, backend, tmp_path):
    how = {"source": None, "target": tmp_path / "saved", "evaluating": False, "backend": backend}
    saved = [state["y"] for state in processes(2).run(worker.ddp_segment, 0, 2, **how)]
    points = processes(4).run(worker.points_in_a_larger_job, tmp_path / "saved", backend)
    assert_same_bits(points[:2], saved)
    assert_same_bits(points[2], points[3])
    for tensor, *of_two in zip(points[2], *saved):
        assert any(torch.equal(tensor, one) for one in of_two)
