"""What compact state may do to moments, to updates and to losses; and the command that measures it."""

import json
import math
import sys

import helpers
import pytest
import torch

from bench import characters, loss_curves, moving_averages, report, state_formats, state_peers
from bench.__main__ import main
from extrap_kernels import ExtrapAdam

COMPACT = (torch.bfloat16, torch.uint8)
EXTREME_SCALES = (1e-2, 1e-7, 1e-12)


@pytest.mark.parametrize("name", state_peers.OURS)
@pytest.mark.parametrize("beta2", [0.9, 0.95, 0.999, 0.9999])
def test_second_moments_follow_their_gradients(beta2, name):
    """Whether these stay, all shrink tenfold, or every second one: the median root is within 5% of float32's."""
    for row in moving_averages.follow(name, beta2, EXTREME_SCALES):
        assert abs(row["median"] - 1) < 0.05, row


def test_averages_that_stop_are_seen():
    rows = moving_averages.follow("bfloat16 to nearest", 0.999, [1e-2])
    assert {row["case"] for row in rows if row["median"] > 2} == {
        "all shrink tenfold",
        "every second one shrinks: the small",
    }


@pytest.mark.parametrize("betas", moving_averages.BETAS)
@pytest.mark.parametrize("name", state_peers.OURS)
def test_updates_stay_below_three_times_those_of_float32(name, betas):
    (reference,) = moving_averages.largest_updates(state_peers.REFERENCE, betas)
    for seed in range(3):
        (largest,) = moving_averages.largest_updates(name, betas, seed=seed)
        for case in moving_averages.HOSTILE:
            assert largest[case] < 3 * reference[case], (seed, case)


@pytest.mark.parametrize("name", ["bfloat16 to nearest", "FlashOptim, our few lines of it"])
def test_written_formats_step_as_adam_does(name):
    """Before anything is rounded away: the first steps, at gradients of one size."""
    written, ours = (state_peers.FORMATS[n]((32, 64), (0.9, 0.95)) for n in (name, state_peers.REFERENCE))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        gradient = 1.0 + 0.1 * torch.rand(32, 64, generator=generator)
        torch.testing.assert_close(written.update(gradient), ours.update(gradient), rtol=0.02, atol=0)
        torch.testing.assert_close(written.root(), ours.root(), rtol=0.02, atol=0)


def one_step(state_dtype, backend, seed=0, **options):
    """Moments after a step, in float32, and the optimizer; whatever the seed, the gradients are the same."""
    param = torch.nn.Parameter(torch.zeros(64, 64, device=helpers.DEVICES[backend]))
    optimizer = ExtrapAdam([param], lr=0.1, state_dtype=state_dtype, seed=seed, backend=backend, **options)
    generator = torch.Generator().manual_seed(1)
    param.grad = (torch.randn(64, 64, generator=generator) * 1e-3).to(param.device)
    optimizer.step()
    return optimizer.float32_state_dict()["state"][0], optimizer


def last_places(exact, name, entries, state_dtype):
    """The distance of the two numbers between which each is rounded, float64."""
    exponent = exact.abs().log2().floor()
    if state_dtype == torch.bfloat16:
        return 2.0 ** (exponent - 7)
    of_block = entries[f"{name}_exponent"].cpu().double().repeat_interleave(16, 1) - 127
    return 2.0 ** (torch.maximum(exponent, of_block - 6) - (4 if name == "exp_avg" else 5))


@pytest.mark.parametrize(
    "state_dtype, name",
    [(torch.bfloat16, "exp_avg_sq"), (torch.uint8, "exp_avg"), (torch.uint8, "exp_avg_sq")],
    ids=["bfloat16-second", "uint8-first", "uint8-second"],
)
def test_what_a_step_stores_is_unbiased(backend, state_dtype, name):
    """Over seeds, for each number and for all of them: errors have mean 0 and the variance of stochastic rounding."""
    rooted = state_dtype == torch.uint8 and name == "exp_avg_sq"
    exact = one_step(torch.float32, backend)[0][name].cpu().double()
    exact = exact.sqrt() if rooted else exact
    seeds, total, variance = 48, torch.zeros(64, 64).double(), torch.zeros(64, 64).double()
    for seed in range(seeds):
        stored, optimizer = one_step(state_dtype, backend, seed)
        value = stored[name].cpu().double()
        (entries,) = optimizer.state.values()
        place = last_places(exact, name, entries, state_dtype)
        fraction = exact.abs() / place % 1
        total += ((value.sqrt() if rooted else value) - exact) / place
        variance += fraction * (1 - fraction)
    # What lies on a code is not rounded; what lies below the first code of a root is never rounded to 0.
    rounded = (variance / seeds > 0.02) & (exact.abs() > place)
    scores = (total / variance.sqrt())[rounded]
    count = int(rounded.sum())
    assert count > 3000
    assert abs(float(scores.mean())) < 5 / math.sqrt(count)
    assert abs(float(scores.square().mean()) - 1) < 5 * math.sqrt(2 / count)


@pytest.mark.parametrize("state_dtype", COMPACT, ids=helpers.describe)
def test_all_ranks_round_alike(backend, state_dtype):
    """Each adds noise of its own to y; the base iterate and the moments are the same."""
    optimizers = []
    for rank in (0, 5):
        params = [torch.nn.Parameter(torch.ones(64, 64, device=helpers.DEVICES[backend], dtype=torch.bfloat16))]
        options = {"noise": "uniform", "noise_std": 1.0, "state_dtype": state_dtype}
        optimizers.append(ExtrapAdam(params, lr=0.1, backend=backend, **options))
        optimizers[-1].rank = rank
        helpers.train(optimizers[-1], 3)
    one, other = map(helpers.snapshot, optimizers)
    assert not torch.equal(one[0][0], other[0][0])
    helpers.assert_same_bits(one[1], other[1])


def final_loss(method, steps=100):
    return loss_curves.train("digits", method, seed=0, steps=steps)[-1]["loss"]


@pytest.mark.parametrize("perturbation", ["past_gradient", "noise"])
def test_training_follows_that_with_float32_state(perturbation):
    """The loss falls from 2.3 to below 0.6; compact state changes it by less than a twentieth of that."""
    reference = final_loss(f"{perturbation}, float32")
    assert reference < 0.6
    for state_dtype in ("bfloat16", "uint8"):
        assert abs(final_loss(f"{perturbation}, {state_dtype}") - reference) < 0.08


def test_differences_are_those_of_each_seed():
    runs = {"a, float32": [[1.0, 2.0], [3.0, 4.0]], "a, uint8": [[1.5, 2.25], [3.0, 4.75]]}
    curves = {
        method: [[{"step": k, "loss": loss} for k, loss in enumerate(run)] for run in of_seeds]
        for method, of_seeds in runs.items()
    }
    reference, row = loss_curves.comparison(curves)
    assert (reference["loss"], reference["difference"]) == (3.0, "")
    assert row["minus that of"] == "a, float32" and row["largest on the way"] == "+0.5000"
    assert (row["difference"], row["std of it"]) == ("+0.5000", f"{0.25 * math.sqrt(2):.4f}")
    curves["a, uint8"][0][0]["loss"] = math.nan
    with pytest.raises(ValueError, match="diverged"):
        loss_curves.comparison(curves)


def test_text_is_that_of_pythons_documentation():
    text = characters.load()
    assert len(text.train) > 8 * len(text.validation) > 10**5
    assert int(text.train.min()) >= 0 and int(text.train.max()) < len(characters._LETTERS)
    word = "".join(chr(characters._LETTERS[code]) for code in characters._codes("é finally:\n"))
    assert word == " finally:\n"
    (batch,) = characters.batches(text.train, 5, 1, seed=3)
    assert batch.shape == (5, characters.CONTEXT + 1)


def test_a_character_is_predicted_from_those_before_it():
    torch.manual_seed(0)
    model, codes = characters.Transformer(), torch.zeros(1, 8, dtype=torch.int64)
    changed = codes.clone()
    changed[0, 5] = 3
    same = (model(codes) == model(changed)).all(2)[0]
    assert same.tolist() == [True] * 5 + [False] * 3


def test_command_goes_on_where_it_was_stopped(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "state_formats.md"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    monkeypatch.setattr("bench.__main__.GENERATED", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "state_formats", "--quick", "--write-docs"])
    main()
    written = page.read_text()
    for name in ("float32", "uint8", "FlashOptim, our few lines of it", *loss_curves.METHODS):
        assert f"| {name} |" in written
    for image in ("moving_averages", "digits", "characters"):
        assert f"(state_formats/{image}.svg)" in written
        assert "<svg" in (tmp_path / "state_formats" / f"{image}.svg").read_text()
    kept = sorted((tmp_path / "results" / "state_formats_quick").glob("*.json"))
    assert len(kept) == len(state_formats.Measurements(quick=True).jobs)
    # One is measured anew, and the others are read: what one of them was changed to comes out.
    (changed,) = (path for path in kept if path.name.startswith("largest_updates_uint8_betas_0.9_0.999"))
    content = json.loads(changed.read_text())
    content["rows"][0] = dict.fromkeys(content["rows"][0], 12345.0)
    changed.write_text(json.dumps(content))
    kept[0].unlink()
    capsys.readouterr()
    main()
    assert "12,345" in capsys.readouterr().out and kept[0].exists()
