"""The workloads: data, network, rule and the numbers that all methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reproduction import images, texts
from reproduction.models import ImageResNet, LanguageModel, Network, Translator
from reproduction.splits import Dataset

WORDS, LENGTH = 16, 20  # of a window, of a sentence
_WORDS_KNOWN, _WORDS_TRANSLATED = 2000, 1500  # sizes of vocabularies


@dataclass(frozen=True)
class Workload:
    """What is trained, and how long.

    Attributes:
        load: returns the data in a folder, and what the network is made with.
        network: makes it.
        rule: name of the rule, of :data:`reproduction.methods.RULES`.
        epochs: how often each example is seen, at every batch size.
        batch_sizes: from the smallest to the largest, at which all methods are compared.
        worker_batch: share of a worker, where each has a gradient of its own.
        lr: learning rate of the smallest batch.
        scaling: power of the batch size by which the learning rate grows: 1 (Goyal et al. 2017), or 1/2 for Adam.
        max_grad_norm: bound of the gradient's norm; None: no bound.
        target: validation loss, the steps to which are counted.
        classes: how many there are to choose from.
        swept: whether :mod:`reproduction.sweeps` varies its numbers.
    """

    load: Callable[[Path], tuple[Dataset, tuple[Any, ...]]]
    network: Callable[..., Network]
    rule: str
    epochs: int
    batch_sizes: tuple[int, ...]
    worker_batch: int
    lr: float
    scaling: float
    max_grad_norm: float | None
    target: float
    classes: int
    swept: bool = False

    def scaled_lr(self, batch_size: int) -> float:
        """Return the learning rate that the usual rule gives a batch."""
        return float(self.lr * (batch_size / self.batch_sizes[0]) ** self.scaling)


def _fashion(folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    return images.fashion_mnist(folder / "datasets/fashion-mnist", 8192, 2000), (1,)


def _cifar(folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    return images.cifar10(folder / "cifar-10-batches-bin", 8192, 2000), (3,)


def _english(folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    data, vocabulary = texts.language_model(texts.bible_sentences(folder / "sword"), 102_400, WORDS, _WORDS_KNOWN)
    return data, (vocabulary,)


def _wikitext(folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    data, vocabulary = texts.language_model(texts.wikitext2(folder / "wikitext-2"), 102_400, WORDS, _WORDS_KNOWN)
    return data, (vocabulary,)


def _spanish(folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    data, vocabularies = texts.translation(texts.bible_pairs(folder / "sword"), 4096, LENGTH, _WORDS_TRANSLATED)
    return data, (vocabularies, LENGTH)


def _german(folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    data, vocabularies = texts.translation(texts.multi30k(folder / "multi30k"), 4096, LENGTH, _WORDS_TRANSLATED)
    return data, (vocabularies, LENGTH)


def _resnet(load: Any) -> Workload:
    return Workload(
        load,
        ImageResNet,
        rule="sgd",
        epochs=12,
        batch_sizes=(128, 256, 2048),
        worker_batch=128,
        lr=0.1,
        scaling=1.0,
        max_grad_norm=None,
        target=1.2,
        classes=10,
        swept=True,
    )


def _lstm(load: Any) -> Workload:
    return Workload(
        load,
        LanguageModel,
        rule="sgd",
        epochs=6,
        batch_sizes=(32, 1600),
        worker_batch=100,
        lr=0.5,
        scaling=1.0,
        max_grad_norm=1.0,
        target=5.6,
        classes=_WORDS_KNOWN,
    )


def _transformer(load: Any) -> Workload:
    return Workload(
        load,
        Translator,
        rule="adamw",
        epochs=5,
        batch_sizes=(64, 1024),
        worker_batch=64,
        lr=4e-3,
        scaling=0.5,
        max_grad_norm=1.0,
        target=5.0,
        classes=_WORDS_TRANSLATED,
    )


# The first three are read from Debian's packages, the others from files that the user has.
WORKLOADS = {
    "resnet-fashion": _resnet(_fashion),
    "lstm-english": _lstm(_english),
    "transformer-spanish": _transformer(_spanish),
    "resnet-cifar10": _resnet(_cifar),
    "lstm-wikitext2": _lstm(_wikitext),
    "transformer-german": _transformer(_german),
}
DEFAULT = tuple(WORKLOADS)[:3]


@lru_cache
def data(name: str, folder: Path) -> tuple[Dataset, tuple[Any, ...]]:
    """Return the data of a workload, and what its network is made with; read once in a process.

    Raises:
        FileNotFoundError: a file is not there; the message says how to get it.
    """
    try:
        return WORKLOADS[name].load(folder)
    except FileNotFoundError as error:
        remedy = "run `python -m reproduction fetch`" if name in DEFAULT else "put it there; see docs/results.md"
        raise FileNotFoundError(f"{error.filename} is missing: {remedy}, or name its folder by --data") from error
