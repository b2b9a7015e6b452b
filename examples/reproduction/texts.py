"""Texts: the Bible in English and Spanish as Debian ships it, WikiText-2's and Multi30k's files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from reproduction.splits import Dataset, Split, take

ENGLISH, SPANISH = "engWEB2015eb", "spaRV1909eb"
# Whole books: neighbouring verses repeat each other.
_VALIDATION, _TEST = ("Job",), ("Ruth", "Esther", "Hebrews")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+|[^\w\s]")
_UNKNOWN, _END, PADDING = 0, 1, 2

Words = list[str]


class Vocabulary:
    """Numbers for the most frequent words; 0 is any other word, 1 the end of a sentence, 2 padding.

    Args:
        sentences: of the training split.
        limit: how many numbers there are at most.
    """

    def __init__(self, sentences: Iterable[Words], limit: int) -> None:
        counts = Counter(word for sentence in sentences for word in sentence)
        # By frequency, then by spelling.
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: limit - 3]
        self._numbers = {word: 3 + i for i, (word, _) in enumerate(ranked)}

    def __len__(self) -> int:
        return 3 + len(self._numbers)

    def encode(self, sentence: Words) -> list[int]:
        """Return the numbers of the words, and that of the end."""
        return [*(self._numbers.get(word, _UNKNOWN) for word in sentence), _END]


def words_of(text: str) -> Words:
    """Split a text into words in lower case, numbers and punctuation marks."""
    return _WORD.findall(text.lower())


def bible(folder: Path, module: str) -> dict[str, dict[tuple[int, int], Words]]:
    """Return the words of each verse, by chapter and verse, of each book.

    Raises:
        ImportError: pysword is not installed.
    """
    from pysword.modules import SwordModules

    modules = SwordModules(str(folder))
    modules.parse_modules()
    text = modules.get_bible_from_module(module)
    # It would inflate a whole book for each verse.
    text._decompressed_text = lru_cache(2)(text._decompressed_text)
    books: dict[str, dict[tuple[int, int], Words]] = {}
    for book in [book for testament in text.get_structure().get_books().values() for book in testament]:
        verses = books.setdefault(book.name, {})
        for chapter, length in enumerate(book.chapter_lengths, 1):
            for verse in range(1, length + 1):
                found = words_of(text.get(books=[book.name], chapters=[chapter], verses=[verse], join=" "))
                if found:
                    verses[chapter, verse] = found
    return books


def bible_sentences(folder: Path) -> tuple[list[Words], list[Words], list[Words]]:
    """Return the verses of the World English Bible to train on, to validate and to test."""
    books = bible(folder, ENGLISH)

    def verses(names: Iterable[str]) -> list[Words]:
        return [verse for name in names for verse in books[name].values()]

    return verses(set_apart(books)), verses(_VALIDATION), verses(_TEST)


def set_apart(books: Iterable[str]) -> list[str]:
    """Return the books to train on.

    Raises:
        ValueError: one of those to hold out is not there.
    """
    names = list(books)
    for name in (*_VALIDATION, *_TEST):
        if name not in names:
            raise ValueError(f"the text has no book {name!r}, which is to be held out; fetch it again")
    return [name for name in names if name not in (*_VALIDATION, *_TEST)]


def bible_pairs(folder: Path) -> tuple[list[tuple[Words, Words]], ...]:
    """Return pairs of verses, English and Spanish, to train on, to validate and to test."""
    english, spanish = bible(folder, ENGLISH), bible(folder, SPANISH)

    def pairs(names: Iterable[str]) -> list[tuple[Words, Words]]:
        return [
            (verse, spanish[name][at])
            for name in names
            if name in spanish
            for at, verse in english[name].items()
            if at in spanish[name]
        ]

    return pairs(set_apart(english)), pairs(_VALIDATION), pairs(_TEST)


def wikitext2(folder: Path) -> tuple[list[Words], ...]:
    """Return the lines of ``wiki.train.tokens``, ``wiki.valid.tokens`` and ``wiki.test.tokens``, as they are split."""
    return tuple(
        [line.split() for line in (folder / f"wiki.{name}.tokens").read_text("utf-8").splitlines() if line.strip()]
        for name in ("train", "valid", "test")
    )


def multi30k(folder: Path) -> tuple[list[tuple[Words, Words]], ...]:
    """Return the pairs of ``train.en`` and ``train.de``, and so on for ``val`` and ``test``.

    Raises:
        ValueError: two files have different numbers of lines.
    """
    found = []
    for name in ("train", "val", "test"):
        english, german = ((folder / f"{name}.{tongue}").read_text("utf-8").splitlines() for tongue in ("en", "de"))
        if len(english) != len(german):
            raise ValueError(f"{name}.en has {len(english)} lines and {name}.de {len(german)}; fetch them again")
        found.append([(words_of(a), words_of(b)) for a, b in zip(english, german)])
    return tuple(found)


def language_model(splits: Sequence[list[Words]], words: int, length: int, vocabulary: int) -> tuple[Dataset, int]:
    """Return windows of ``length`` words with the words that follow them, both (n, length), and the vocabulary's size.

    Args:
        splits: sentences to train on, to validate and to test.
        words: how many words are trained on; a fourth of them for validation and test each, at most.
        length: of a window.
        vocabulary: the largest size of the vocabulary.
    """
    known = Vocabulary(splits[0], vocabulary)

    def windows(sentences: list[Words], limit: int) -> Split:
        numbers = [number for sentence in sentences for number in known.encode(sentence)][: limit + 1]
        count = (len(numbers) - 1) // length
        text = torch.tensor(numbers)
        return tuple(text[first : first + count * length].view(count, length) for first in (0, 1))

    train, validation, test = (
        windows(sentences, limit) for sentences, limit in zip(splits, (words, words // 4, words // 4))
    )
    return Dataset(train, validation, test), len(known)


def translation(
    splits: Sequence[list[tuple[Words, Words]]], pairs: int, length: int, vocabulary: int
) -> tuple[Dataset, tuple[int, int]]:
    """Return sentences and their translations, (n, length) each, padded, and the sizes of both vocabularies.

    Args:
        splits: pairs to train on, to validate and to test; longer ones are left out.
        pairs: how many are trained on; a fourth of them for validation and test each, at most.
        length: of a sentence with its end.
        vocabulary: the largest size of a vocabulary.
    """
    short = [[pair for pair in split if max(map(len, pair)) < length] for split in splits]
    known = [Vocabulary((pair[side] for pair in short[0]), vocabulary) for side in (0, 1)]

    def padded(side: int, split: list[tuple[Words, Words]]) -> Tensor:
        rows = [known[side].encode(pair[side]) for pair in split]
        return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows])

    def columns(split: list[tuple[Words, Words]], limit: int) -> Split:
        whole = padded(0, split), padded(1, split)
        return take(whole, torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:limit])

    train, validation, test = (columns(split, limit) for split, limit in zip(short, (pairs, pairs // 4, pairs // 4)))
    return Dataset(train, validation, test), (len(known[0]), len(known[1]))
