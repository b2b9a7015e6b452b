"""FSDP1 flattens parameters: it trains and evaluates, and what flat tensors would do wrong is refused."""

import fsdp1_worker
import pytest

ORIGINAL = pytest.mark.parametrize("original", [False, True], ids=["flat", "original parameters"])


MSAM = {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3}


@ORIGINAL
@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.1}, MSAM], ids=str)
def test_trains_and_evaluates_as_one_process(processes, original, options):
    for losses, messages in processes(2).run(fsdp1_worker.final_losses, original, bool(options), **options):
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert len(messages) == 1 and "FSDP1 keeps the weights of its root module" in messages[0]


@ORIGINAL
@pytest.mark.parametrize("name", ["ExtrapLARS", "ExtrapLAMB"])
def test_trust_ratios_are_refused(processes, name, original):
    for message in processes(2).run(fsdp1_worker.refusal, name, original):
        assert f"{name} would take one trust ratio for all of them" in message


@ORIGINAL
def test_options_for_whole_tensors_are_refused(processes, original):
    run = processes(2).run
    for message in run(fsdp1_worker.refusal, "ExtrapSGD", original, noise="uniform", noise_scale="tensor"):
        assert "noise_scale='tensor' would be that of all of them" in message
    for message in run(fsdp1_worker.refusal, "ExtrapSGD", original, max_grad_norm=1.0):
        assert "set optimizer.gradient_norm_group" in message
    for message in run(fsdp1_worker.refusal, "ExtrapSGD", original, extrap_norm="global"):
        assert "set optimizer.gradient_norm_group" in message
