"""The reproduction's simulated workers find what real ones find, bit for bit: with two of them every mean is exact."""

import pytest
import reproduction_worker
from reproduction.training import Trial
from small_images import write_fashion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_fashion(folder / "datasets/fashion-mnist", 10_300, 300)
    return folder


@pytest.mark.parametrize("method", ["past gradient, own", "past gradient, own, then post-local"])
def test_real_and_simulated_workers(processes, folder, method):
    trial = Trial("resnet-fashion", method, 256, 0.2, 1.0, 1, epochs=0.25)
    outcomes = processes(2).run(reproduction_worker.train, trial, folder)
    for outcome in (outcome for both in outcomes for outcome in both):
        del outcome["seconds"]
    (real, simulated), (other, again) = outcomes
    assert real == simulated == again
    # Of this worker's own y alone.
    assert real.pop("distance") != other.pop("distance")
    if method == "past gradient, own":
        assert real == other
    else:
        assert real["test_loss"] == other["test_loss"]
    assert len(real["curve"]) == 8 and real["validation_loss"] is not None
