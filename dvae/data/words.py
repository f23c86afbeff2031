"""A corpus that every machine has: the docstrings of Python's own library, as bags of words."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dvae.data.arrays import Splits, check_count
from dvae.data.module import DataModule
from dvae.data.splitting import hold_out

__all__ = ["Docstrings", "Document"]

_WORD = re.compile(r"[a-z]{3,}")
# Words that say nothing of what a text is about.
_STOP = frozenset(
    _WORD.findall(
        "the and for that with this from are not will can has have which but was been its then than when where all any may must "
        "one two you your they them there these those into used use using only also each such same other more some does should "
        "would see how what who why our out over under between after before about because return returns returned none true false"
    )
)
_SKIPPED = ("test", "tests", "encodings", "idlelib", "lib2to3", "site-packages", "turtledemo", "pydoc_data", "__pycache__")


class Document(NamedTuple):
    """One docstring.

    name: of the function, class or module that it is of, with dots.
    text: the docstring.
    """

    name: str
    text: str


class Docstrings(DataModule):
    """Word counts [N, words] of the docstrings of Python's standard library: some 3,000 short documents.

    A document is a docstring of at least ten counted words, its label the number of its top-level module. The vocabulary are the
    words that occur in most documents, but for short words and those that say nothing. Which
    documents there are depends on Python's version.
    Likelihoods for counts are :class:`dvae.likelihoods.Multinomial`, :class:`dvae.likelihoods.NegativeBinomial` and
    :class:`dvae.likelihoods.Poisson`.

    Arguments:
        words: size of the vocabulary.
        batch_size, eval_batch_size, drop_last, seed, data_seed: see :class:`DataModule`; a tenth of the documents each, drawn by
            ``data_seed``, are validation and test set.

    Attributes:
        vocabulary: the words, in the order of x.

    Example: ``data.documents("test")`` has the names and texts of the documents.

        >>> data = dvae.data.Docstrings(words=300)
        >>> data.split("test").shape[1], len(data.documents("test")) == len(data.split("test"))
        (300, True)
    """

    are_images = False

    def __init__(
        self,
        words: int = 1000,
        *,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, eval_batch_size=eval_batch_size, drop_last=drop_last, seed=seed, data_seed=data_seed
        )
        check_count("words", words)
        self.words = words

    @cached_property
    def _corpus(self) -> tuple[list[Document], list[list[str]]]:
        folder = Path(sysconfig.get_paths()["stdlib"])
        documents, counted, seen = [], [], set()
        for document in _docstrings(folder):
            words = [word for word in _WORD.findall(document.text.lower()) if word not in _STOP]
            if len(words) >= 10 and document.text not in seen:
                seen.add(document.text)
                documents.append(document)
                counted.append(words)
        return documents, counted

    @cached_property
    def vocabulary(self) -> Sequence[str]:
        frequency = Counter(word for words in self._corpus[1] for word in set(words))
        ordered = sorted(frequency, key=lambda word: (-frequency[word], word))
        return sorted(ordered[: self.words])

    def read(self) -> Splits:
        documents, counted = self._corpus
        place = {word: index for index, word in enumerate(self.vocabulary)}
        counts = np.zeros((len(documents), len(place)), np.int32)
        for row, words in zip(counts, counted, strict=True):
            for word in words:
                if word in place:
                    row[place[word]] += 1
        modules = [document.name.split(".")[0] for document in documents]
        number = {module: index for index, module in enumerate(sorted(set(modules)))}
        # The documents' own places go the labels' way through the splitting.
        places = {"train": np.arange(len(documents))}
        parts, places = hold_out({"train": counts}, places, 0.1, 0.1, self.data_seed)
        self._places = {name: own.tolist() for name, own in places.items()}
        labels = {name: np.array([number[modules[place]] for place in own]) for name, own in self._places.items()}
        return Splits(**parts, labels=labels)

    def documents(self, split: str) -> list[Document]:
        """The documents of a split, in the order of its examples."""
        self.store(split)
        return [self._corpus[0][place] for place in self._places[split]]


def _docstrings(folder: Path) -> Iterator[Document]:
    """Every docstring below a folder of Python files, in the order of their names."""
    for path in sorted(_files(folder)):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[0].startswith("_"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError, ValueError):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        yield from _in_tree(tree, name)


def _files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in _SKIPPED and not entry.name.startswith("config-"):
            yield from _files(entry)
        elif entry.suffix == ".py":
            yield entry


def _in_tree(node: ast.AST, name: str) -> Iterator[Document]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield Document(name, text)
        for child in node.body:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from _in_tree(child, f"{name}.{child.name}")
