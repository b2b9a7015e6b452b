"""``examples/reproduction``: what it reads, how its workers step, what it keeps, and what its tables say."""

import dataclasses
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from small_images import write_fashion

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from reproduction import __main__ as command
from reproduction import comparison, curvature, images, splits, sweeps, tables, texts, training, workloads
from reproduction.methods import METHODS
from reproduction.models import ImageResNet, Network, Translator
from reproduction.results import Results
from reproduction.training import Trial

EXAMPLES = Path(__file__).parents[1] / "examples"
TRIAL = Trial("resnet-fashion", "plain", 2048, 0.1, None, 1)


def test_fashion_mnist(tmp_path):
    write_fashion(tmp_path / "data", 50, 9)
    data = images.fashion_mnist(tmp_path / "data", 30, 12)
    assert [split[0].shape for split in data] == [(30, 1, 14, 14), (12, 1, 14, 14), (9, 1, 14, 14)]
    assert abs(data.train[0].mean()) < 1e-5 and abs(data.train[0].std() - 1) < 1e-5
    scale = data.train[0][0, 0, 0, 0] - data.train[0][1, 0, 0, 0]
    for pixels, labels in data:
        # The same line through all splits.
        torch.testing.assert_close(
            (pixels[:, 0, 3, 4] - data.train[0][0, 0, 0, 0]) * (data.train[1][0] - data.train[1][1]),
            scale * (labels - data.train[1][0]),
        )


@pytest.mark.parametrize("content", [b"", b"\0\0\x09\x01\0\0\0\0", b"\0\0\x08\0"])
def test_what_is_no_idx_file_is_refused(tmp_path, content):
    write_fashion(tmp_path / "data", 50, 9)
    with gzip.open(tmp_path / "data/train-images-idx3-ubyte.gz", "wb") as file:
        file.write(content)
    with pytest.raises(ValueError, match="is not an IDX file of bytes; fetch it again"):
        images.fashion_mnist(tmp_path / "data", 30, 12)


def test_more_images_than_there_are(tmp_path):
    write_fashion(tmp_path / "data", 50, 9)
    with pytest.raises(ValueError, match="61 examples are needed, and the files have 50"):
        images.fashion_mnist(tmp_path / "data", 50, 11)


def test_cifar10(tmp_path):
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        random.integers(0, 10, (4, 3073), dtype=np.uint8).tofile(tmp_path / f"{name}.bin")
    data = images.cifar10(tmp_path, 14, 6)
    assert [split[0].shape for split in data] == [(14, 3, 32, 32), (6, 3, 32, 32), (4, 3, 32, 32)]
    assert data.test[1].tolist() == np.fromfile(tmp_path / "test_batch.bin", np.uint8)[::3073].tolist()
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match="has 3 bytes"):
        images.cifar10(tmp_path, 14, 6)


def test_words():
    assert texts.words_of("Don’t fear, O Job: 3 TIMES!") == ["don’t", "fear", ",", "o", "job", ":", "3", "times", "!"]
    known = texts.Vocabulary([["b", "a", "a"], ["c", "b"]], 5)
    assert len(known) == 5
    assert known.encode(["a", "b", "c"]) == [3, 4, 0, 1]


def test_wikitext_windows(tmp_path):
    for name, text in (("train", " = Title = \n\n a b a c \n"), ("valid", " a a b \n"), ("test", " b \n c \n")):
        (tmp_path / f"wiki.{name}.tokens").write_text(text)
    data, size = texts.language_model(texts.wikitext2(tmp_path), 100, 2, 100)
    assert size == 3 + 5
    words, following = data.train
    flat = words.flatten().tolist()
    assert len(flat) == 8 and flat[1:] == following.flatten().tolist()[:-1]
    assert data.validation[0].shape == (1, 2) and data.test[0].shape == (1, 2)


def test_multi30k_pairs(tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.en").write_text("A dog.\nA very long sentence about a dog\n")
        (tmp_path / f"{name}.de").write_text("Ein Hund.\nEin sehr langer Satz\n")
    data, sizes = texts.translation(texts.multi30k(tmp_path), 8, 5, 100)
    assert sizes == (6, 6)
    assert [column.tolist() for column in data.train] == [[[4, 5, 3, 1, 2]], [[4, 5, 3, 1, 2]]]
    (tmp_path / "val.de").write_text("Ein Hund.\n")
    with pytest.raises(ValueError, match="val.en has 2 lines and val.de 1"):
        texts.multi30k(tmp_path)


def test_bible_is_split_by_whole_books(monkeypatch):
    english = {
        name: {(1, i): [name, str(i)] for i in (1, 2)} for name in ("Genesis", "Ruth", "Esther", "Job", "Hebrews")
    }
    spanish = {name: {(1, 2): [name.upper()]} for name in english}
    monkeypatch.setattr(texts, "bible", lambda folder, module: english if module == texts.ENGLISH else spanish)
    train, validation, test = texts.bible_pairs(Path())
    assert train == [(["Genesis", "2"], ["GENESIS"])] and validation == [(["Job", "2"], ["JOB"])]
    assert [pair[1] for pair in test] == [["RUTH"], ["ESTHER"], ["HEBREWS"]]
    assert [len(split) for split in texts.bible_sentences(Path())] == [2, 2, 6]
    with pytest.raises(ValueError, match="no book 'Job'"):
        texts.set_apart(["Ruth", "Esther", "Hebrews"])


@pytest.mark.parametrize("sizes", [(5, 12), (7, 7)])
def test_batches_see_every_example(sizes):
    count, batch_size = sizes
    data = (torch.arange(count),)
    seen = torch.cat([batch for (batch,) in splits.batches(data, batch_size, count, seed=3)])
    assert seen.bincount().tolist() == [batch_size] * count


class Line(Network):
    """A loss with a known Hessian: 3 a**2 + a b + b**2 over two."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64)) for _ in range(2))

    def loss(self, inputs, targets):
        return (3 * self.a**2 + self.a * self.b + self.b**2) / 2 * len(inputs)


def test_sharpness_is_the_largest_eigenvalue():
    examples = torch.zeros(5), torch.zeros(5, dtype=torch.int64)
    model = Line()
    found = curvature.sharpness(model, examples)
    expected = torch.linalg.eigvalsh(torch.tensor([[3.0, 0.5], [0.5, 1.0]])).max()
    assert found == pytest.approx(float(expected), rel=1e-3)
    assert model.a == 0.5 and model.b == 0.5


class Mean(Network):
    """Pulls a vector to the inputs; as many losses as examples."""

    def __init__(self):
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def loss(self, inputs, targets):
        return ((self.at - inputs) ** 2).sum() / 2

    def scores(self, inputs, targets):
        return torch.zeros(len(targets), 2)


@pytest.mark.parametrize("method", ["past gradient, own", "past gradient"])
def test_workers_take_gradients_at_their_own_points(method, monkeypatch):
    monkeypatch.setitem(workloads.WORKLOADS, "mean", workloads._resnet(None))
    count = 2 if METHODS[method].own_gradients else 1
    trial = Trial("mean", method, 4, 0.1, 0.5, 0)
    workers = training.Workers(trial, Mean(), count)
    for optimizer in workers.optimizers:
        optimizer.param_groups[0]["weight_decay"] = 0.0
    x, velocity = np.zeros(3), np.zeros(3)
    points = np.zeros((count, 3))
    for seed, factor in enumerate((0.5, 1.0, 0.25)):
        inputs = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        workers.step((inputs, torch.zeros(4, dtype=torch.int64)), factor)
        own = points - inputs.numpy().reshape(count, -1, 3).mean(axis=1)
        velocity = 0.9 * velocity + own.mean(axis=0)
        x = x - 0.1 * factor * velocity
        # Of one worker, or of each one, along its own gradient, after momentum as the rule of SGD has it.
        points = np.stack([model.at.detach().numpy() for model in workers.models])
        direction = (x - points) / (0.5 * 0.1 * factor)
        if count == 2:
            np.testing.assert_allclose(direction[0] - direction[1], own[0] - own[1], atol=1e-12)
        for model, optimizer in zip(workers.models, workers.optimizers):
            np.testing.assert_allclose(optimizer.base_of(model.at).detach().numpy(), x, atol=1e-12)


@pytest.mark.parametrize("method", ["post-local", "past gradient, own, then post-local"])
def test_workers_step_alone_after_half_of_the_steps(method, monkeypatch):
    """Two workers; every other step is an average. A worker of the middle takes its gradient at its old ``y``."""
    monkeypatch.setitem(workloads.WORKLOADS, "mean", workloads._resnet(None))
    value = 0.5 if METHODS[method].tuned else None
    workers = training.Workers(Trial("mean", method, 4, 0.1, value, 0), Mean(), 2)
    for optimizer in workers.optimizers:
        optimizer.param_groups[0]["weight_decay"] = 0.0
    x, velocity = np.zeros((2, 3)), np.zeros((2, 3))
    for step in range(6):
        if step == 2:
            workers.separate()
        points = np.stack([model.at.detach().numpy().copy() for model in workers.models])
        if step > 2:
            np.testing.assert_allclose(points, x, atol=1e-12)
        inputs = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        workers.step((inputs, torch.zeros(4, dtype=torch.int64)), 1.0)
        own = points - inputs.numpy().reshape(2, -1, 3).mean(axis=1)
        velocity = 0.9 * velocity + (own if step >= 2 else own.mean(axis=0))
        x = x - 0.1 * velocity
        if step in (3, 5):
            workers.average()
            x[:] = x.mean(axis=0)
        for model, optimizer, expected in zip(workers.models, workers.optimizers, x):
            np.testing.assert_allclose(optimizer.base_of(model.at).detach().numpy(), expected, atol=1e-12)
    assert abs(velocity[0] - velocity[1]).max() > 0.01  # those are not averaged


def test_averages_come_every_period_and_at_the_end(monkeypatch):
    steps = []

    class Recorded(training.Workers):
        def separate(self):
            steps.append("separate")
            super().separate()

        def step(self, *args):
            steps.append("step")
            super().step(*args)

        def average(self):
            steps.append("average")
            super().average()

    data = splits.Dataset(*[(torch.randn(n, 3, dtype=torch.float64), torch.zeros(n).long()) for n in (40, 5, 5)])
    workload = workloads._resnet(lambda folder: (data, ()))
    monkeypatch.setitem(workloads.WORKLOADS, "mean", dataclasses.replace(workload, network=Mean))
    monkeypatch.setattr(training, "Workers", Recorded)
    training.train(Trial("mean", "post-local", 4, 0.01, None, 0, epochs=1.3, workers=2), Path())
    half = ["step"] * 6  # of 13
    assert steps == [*half, "separate", *["step"] * 4, "average", *["step"] * 3, "average"]


def test_translator_scores_no_padding():
    torch.manual_seed(0)
    model = Translator((9, 11), 6)
    rows = [[3, 4, 1, 2, 2, 2], [5, 6, 7, 8, 1, 2]]
    inputs, targets = torch.tensor(rows), torch.tensor(rows[::-1])
    scores = model.scores(inputs, targets)
    expected = sum(
        -scores[i, j].log_softmax(0)[t] for i, row in enumerate(rows[::-1]) for j, t in enumerate(row) if t != 2
    )
    torch.testing.assert_close(model.loss(inputs, targets), expected)
    assert model.count(inputs, targets) == 8


def test_results_are_kept_as_they_come(tmp_path):
    outcome = {"validation_loss": None, "curve": [[1, 2.5]], "seconds": 1.0}
    first = Results(tmp_path)
    first.add(TRIAL, outcome)
    path = tmp_path / "resnet-fashion.jsonl"
    path.write_bytes(path.read_bytes() + b'{"trial": {"work')  # interrupted here
    again = Results(tmp_path)
    assert TRIAL in again and again[TRIAL] == outcome
    other = Trial(**{**TRIAL.__dict__, "seed": 2})
    again.add(other, outcome)
    assert [json.loads(line)["trial"]["seed"] for line in path.read_text().splitlines()] == [1, 2]


def test_every_method_has_as_many_trials():
    settings = comparison.Settings(("resnet-fashion",))
    trials = {name: settings.trials("resnet-fashion", name, 2048) for name in METHODS}
    assert {len(set(found)) for found in trials.values()} == {len(comparison.LR_FACTORS)}
    assert all(trial.seed == 0 for found in trials.values() for trial in found)
    assert "past gradient, own" not in comparison.compared_methods(settings, "resnet-fashion", 128)
    assert comparison.compared_methods(settings, "resnet-fashion", 2048) == list(METHODS)
    assert comparison.compared_methods(settings, "resnet-fashion", 256) == list(settings.small_batch_methods)
    assert set(settings.small_batch_methods) < set(METHODS)


def test_the_best_trial_did_not_diverge(tmp_path):
    settings, results = comparison.Settings(("resnet-fashion",)), Results(tmp_path)
    trials = settings.trials("resnet-fashion", "plain", 2048)
    for i, trial in enumerate(trials):
        assert comparison.best(trials, results) is None
        results.add(trial, {"validation_loss": None if i == 0 else abs(i - 3) + 1.0})
    assert comparison.best(trials, results) == trials[3]


def test_differences_are_paired():
    a, b = [1.0, 1.5, 2.5, 2.0], [0.5, 1.25, 2.0, 1.75]
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = tables.difference(a, b)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert tables.difference([1.0, None], [1.0, 2.0]) is None


@pytest.mark.parametrize("sweep", sweeps.SWEEPS)
def test_a_sweep_varies_one_number(sweep):
    settings, chosen = comparison.Settings(("resnet-fashion", "lstm-english")), sweeps.SWEEPS[sweep]
    assert sweeps.workloads(settings) == ["resnet-fashion"]
    differing = set()
    for method in chosen.methods:
        standard = settings.scaled("resnet-fashion", method, 2048, 1)
        for value in chosen.values:
            trial, *others = sweeps.of_seeds(settings, "resnet-fashion", sweep, value, method)
            assert [other.seed for other in others] == [2, 3]
            changed = {name: found for name, found in vars(trial).items() if found != getattr(standard, name)}
            if value == (chosen.standard or 2048):
                assert trial == standard  # of the tables: it is not trained again
            elif chosen.varied == "batch_size":
                assert changed == {"batch_size": value, "lr": pytest.approx(0.1 * value / 128)}
            elif changed:
                assert changed == {chosen.varied: value}
                differing.add(method)
    expected = {
        "batch_size": set(),
        "workers": {"past gradient, own"},
        "blocks": set(chosen.methods),
        "value": {"Gaussian noise"},
    }
    assert differing == expected[chosen.varied]


def test_page_of_a_sweep(tmp_path):
    settings = comparison.Settings(("resnet-fashion",), sweeps=("workers",))
    results = Results(tmp_path)
    for trial in sweeps.trials(settings, "resnet-fashion", "workers"):
        if trial.workers != 4:
            loss = {"plain": 2.0, "past gradient": 1.5, "past gradient, own": 1.0}[trial.method] + trial.seed / 8
            outcome = training.Outcome(loss, loss, 50.0, [], 48, None, None, None, 1.0)
            results.add(trial, dataclasses.asdict(outcome))
    tables.write(settings, results, tmp_path)
    page = (tmp_path / "tables.md").read_text()
    assert [line.split(" | ")[0] for line in page.splitlines() if line[:3] in ("| 2", "| 8", "| 1", "| 3")] == [
        "| 2",
        "| 8",
        "| 16",
        "| 32",
    ]
    assert page.count("| 2.250 ± 0.125 | 1.250 ± 0.125 | -1.000 [-1.000, -1.000] | 1.750 ± 0.125 | -0.500 [") == 4
    assert "Not tuned yet: plain; past gradient, own; past gradient; past update;" in page
    assert (tmp_path / "resnet-fashion_sweeps.png").read_bytes().startswith(b"\x89PNG")


def test_depth_of_the_network():
    for blocks in (1, 2, 4):
        model = ImageResNet(1, blocks=blocks)
        assert len(model.blocks) == blocks
        assert model.scores(torch.zeros(2, 1, 14, 14), torch.zeros(2)).shape == (2, 10)


def test_missing_data_names_the_remedy(tmp_path, capsys):
    for name, remedy in (("resnet-fashion", "python -m reproduction fetch"), ("resnet-cifar10", "put it there")):
        with pytest.raises(FileNotFoundError, match=remedy):
            workloads.data(name, tmp_path)
    with pytest.raises(SystemExit):
        command.main(["run", "--threads", "0"])
    assert "--threads 0 is less than 1" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run(tmp_path):
    write_fashion(tmp_path / "data/datasets/fashion-mnist", 10_300, 2000)
    call = [sys.executable, "-m", "reproduction", "run", "--quick", "--workloads", "resnet-fashion", "--threads", "2"]
    call += ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seconds = []
    for _ in range(2):
        done = subprocess.run(call, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / "out/resnet-fashion.jsonl").read_text().splitlines()
        seconds.append([json.loads(line)["outcome"]["seconds"] for line in lines])
    assert len(seconds[0]) == 30 + 8 and seconds[0] == seconds[1]  # nothing is trained again
    page = (tmp_path / "out/tables.md").read_text()
    for batch_size in (128, 256, 2048):
        assert f"## resnet-fashion, batch {batch_size}" in page
        assert (tmp_path / f"out/resnet-fashion_{batch_size}.png").read_bytes().startswith(b"\x89PNG")
    assert page.count("| plain |") == 6 + 1 and page.count("| SAM (2 gradients) |") == 2
    assert page.count("| past gradient, own |") == 4 + 1
    assert "Not tuned yet" not in page
    assert "### workers" in page
