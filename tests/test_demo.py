"""The demo: what it writes, and that its simulated workers do what data-parallel workers do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import demo
import digits
import recipe
import report
from resnet import ResNet
from simulated_workers import SimulatedWorkers

from extrap_kernels import ExtrapSGD

LR = 0.1
pytestmark = pytest.mark.xdist_group("demo")  # in one process, which runs it once


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, demo.__file__, "--quick", "--threads", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((out / "demo.json").read_text()), (out / "demo.png").read_bytes()


def test_quick_run_writes_every_cell(quick):
    _, numbers, picture = quick
    cells = {(r["regime"], r["batch_size"], r["method"]) for r in numbers["results"]}
    assert cells == {(r, b, m) for r in ("scaled", "tuned") for b in (256, 1024) for m in ("SGD", "ExtrapSGD")}
    for result in numbers["results"]:
        assert result["workers"] == result["batch_size"] // 32
        assert len(result["runs"]) == 2
        for run in result["runs"]:
            assert 0 <= run["test_accuracy"] <= 100
            assert run["steps"] == round(2 * 1077 / result["batch_size"])
            assert 0 < run["optimizer_seconds"] < run["step_seconds"]
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_quick_run_prints_what_it_writes(quick):
    printed, numbers, _ = quick
    for result in numbers["results"]:
        accuracies = torch.tensor([run["test_accuracy"] for run in result["runs"]], dtype=torch.float64)
        assert f"{accuracies.mean():.1f} ± {accuracies.std():.1f}" in printed
    assert numbers["conclusion"] in re.sub(r"\s*\n", " ", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "--seeds 1 gives no spread"),
        (["--epochs", "0"], "'0' is not a whole number above 0"),
        (["--batch-sizes", "100"], "100 is not a multiple of 32"),
        (["--batch-sizes", "64", "--workers", "7"], "64 is not a multiple of 7"),
        (["--batch-sizes", "2048"], "2048 is more than the 1077 training images"),
        (["--backend", "none"], "invalid choice: 'none'"),
    ],
)
def test_refuses_what_cannot_be_carried_out(arguments, message, capsys):
    with pytest.raises(SystemExit):
        demo.parse(arguments)
    assert message in capsys.readouterr().err


class ByHand:
    """Nesterov SGD with extrapolation on softmax regression, in float64, with the gradient in closed form."""

    def __init__(self, weight, workers):
        self.x = weight.detach().double()
        self.y = [self.x.clone() for _ in range(workers)]
        self.v = torch.zeros_like(self.x)

    def step(self, images, labels):
        shares = zip(self.y, images.double().chunk(len(self.y)), labels.chunk(len(self.y)))
        local = [self.gradient(*share) + recipe.WEIGHT_DECAY * self.x for share in shares]
        g = sum(local) / len(local)
        self.v = recipe.MOMENTUM * self.v + g
        self.x = self.x - LR * (g + recipe.MOMENTUM * self.v)
        self.y = [self.x - LR * l for l in local]

    @staticmethod
    def gradient(weight, images, labels):
        wrong_by = torch.softmax(images @ weight.T, dim=1) - torch.nn.functional.one_hot(labels, len(weight))
        return wrong_by.T @ images / len(images)


def test_steps_equal_a_hand_computed_update():
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3, bias=False)
    workers = SimulatedWorkers(model, 4, lambda params: recipe.make_optimizer("ExtrapSGD", params, LR))
    by_hand = ByHand(model.weight, 4)
    for _ in range(3):
        images, labels = torch.randn(24, 5), torch.randint(3, (24,))
        workers.step(images, labels)
        by_hand.step(images, labels)
        torch.testing.assert_close(workers.base()["weight"].double(), by_hand.x, rtol=1e-6, atol=1e-6)
        for replica, y in zip(workers.replicas, by_hand.y):
            torch.testing.assert_close(replica["weight"].detach().double(), y, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(by_hand.y[0], by_hand.y[1], rtol=0, atol=1e-3)  # the tolerance would tell them apart


def trained_resnet(method, workers, steps=3):
    torch.manual_seed(0)
    simulated = SimulatedWorkers(ResNet(), workers, lambda params: recipe.make_optimizer(method, params, LR))
    for images, labels in digits.batches(digits.load().train, 64, steps, seed=0):
        simulated.step(images, labels)
    return simulated


def test_bases_agree_and_extrapolated_points_differ():
    simulated = trained_resnet("ExtrapSGD", workers=4)
    base = simulated.base()
    stems = [replica["stem.weight"] for replica in simulated.replicas]
    assert all(not torch.equal(stem, base["stem.weight"]) for stem in stems)
    assert all(not torch.equal(stem, stems[0]) for stem in stems[1:])


def test_base_refuses_workers_that_drifted_apart():
    simulated = trained_resnet("ExtrapSGD", workers=2)
    optimizer = simulated.optimizers[1]
    assert isinstance(optimizer, ExtrapSGD)
    with torch.no_grad():
        optimizer.state[simulated.replicas[1]["head.bias"]]["base"][0] += 1e-6
    with pytest.raises(RuntimeError, match=r"workers 0 and 1 differ in \['head.bias'\]"):
        simulated.base()


def test_sgd_does_not_depend_on_the_number_of_workers():
    one, four = (trained_resnet("SGD", workers).base() for workers in (1, 4))
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=1e-4, atol=1e-5)


def test_batches_show_every_image_once_an_epoch():
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    train = digits.Split(images, torch.arange(10))
    seen = torch.cat([labels for _, labels in digits.batches(train, batch_size=4, steps=5, seed=0)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))


def test_shifts_move_by_at_most_a_pixel():
    dot = torch.zeros(200, 1, 8, 8)
    dot[:, 0, 4, 4] = 1.0
    moved = digits.shifted(dot, torch.Generator().manual_seed(0))
    assert {tuple(place) for place in moved.nonzero()[:, 2:].tolist()} == {(r, c) for r in (3, 4, 5) for c in (3, 4, 5)}
    assert len(moved.nonzero()) == 200


def test_splits_are_disjoint_and_standardised():
    data = digits.load()
    assert [len(split.labels) for split in data] == [1077, 270, 450]
    assert abs(data.train.images.mean()) < 1e-5
    assert abs(data.train.images.std() - 1) < 1e-3


def test_learning_rate_warms_up_and_decays():
    factors = [recipe.lr_factor(step, 50) for step in range(50)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1
    assert all(a > b for a, b in zip(factors[10:], factors[11:]))
    assert recipe.lr_factor(0, 1) == 1


def test_conclusion_follows_the_intervals():
    found = [
        report.Difference("scaled", 128, 0.1, -0.5, 0.7),
        report.Difference("scaled", 256, 2.0, 0.5, 3.5),
        report.Difference("tuned", 128, -1.0, -1.5, -0.5),
        report.Difference("tuned", 256, 0.0, 0.0, 0.0),
    ]
    said = report.conclusion(found)
    assert "lr scaled with the batch, ahead at batch 256 and level at batch 128;" in said
    assert "lr tuned, behind at batch 128 and level at batch 256." in said
