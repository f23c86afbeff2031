"""What a model is given: x in a batch of any kind, and the examples of a split of any data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dvae.data.stores import Store
from dvae.errors import InputError

__all__ = ["Examples", "Piece", "StoredExamples", "StreamedExamples", "labels_of", "x_of"]

# Names that labels have in batches of others.
_LABELS = ("label", "labels", "y", "target", "targets", "class")


def x_of(batch: Any, key: int | str | None = None) -> Tensor:
    """x of a batch: the tensor itself, the first of a tuple, or what ``key`` names.

    Arguments:
        batch: of a loader.
        key: an index of a tuple or a key of a mapping.

    Raises:
        InputError: there is no such part, or it is no tensor.
    """
    if isinstance(batch, Mapping):
        if key not in batch:
            names = ", ".join(map(str, batch))
            raise InputError(f"input_key must say which part of a batch is x, one of {names}, got {key!r}")
        part = batch[key]
    elif isinstance(batch, (list, tuple)):
        if isinstance(key, str) and hasattr(batch, key):
            part = getattr(batch, key)
        elif isinstance(key, str) or not -len(batch) <= (key or 0) < len(batch):
            raise InputError(f"input_key must be an index of a batch of {len(batch)} parts, got {key!r}")
        else:
            part = batch[key or 0]
    else:
        part = batch
    if not isinstance(part, Tensor):
        raise InputError(f"x must be a tensor in every batch, got {type(part).__name__}; input_key says which part it is")
    return part


def labels_of(batch: Any) -> Tensor | None:
    """The labels [B] of a batch, where they usually are; None where there are none."""
    found: Any = None
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in _LABELS if name in batch), None)
    elif isinstance(batch, (list, tuple)) and len(batch) > 1:
        found = batch[1]
    return found if isinstance(found, Tensor) and found.dim() == 1 and len(found) else None


class Piece(NamedTuple):
    """Some examples.

    x: [n, ...].
    labels: [n], or None.
    """

    x: Tensor
    labels: Tensor | None


class Examples:
    """One split of a data set as an evaluation goes through it: in its own order, in pieces of any size."""

    shape: tuple[int, ...]
    """Of one example: (channels, height, width) of an image."""
    count: int | None
    """How many there are; None where only going through them tells."""

    def pieces(self, size: int) -> Iterator[Piece]:
        """All of them, ``size`` at a time; the last piece may be smaller."""
        raise NotImplementedError

    def some(self, number: int, seed: int = 0) -> Tensor:
        """So many, or all where there are fewer, drawn without replacement; of a stream, out of its first ones."""
        raise NotImplementedError

    def endless(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches without end: drawn with replacement; of a stream, in its order, again and again."""
        raise NotImplementedError

    def first(self, number: int) -> Tensor:
        """The first ones, [number, ...]."""
        return next(self.pieces(number)).x


class StoredExamples(Examples):
    """The examples of a store, and their labels [N], if any."""

    def __init__(self, store: Store, labels: Tensor | None = None) -> None:
        self.store, self.labels = store, labels
        self.shape, self.count = store.shape, len(store)

    def pieces(self, size: int) -> Iterator[Piece]:
        for places in torch.arange(len(self.store)).split(size):
            yield Piece(self.store.take(places), None if self.labels is None else self.labels[places])

    def some(self, number: int, seed: int = 0) -> Tensor:
        order = torch.randperm(len(self.store), generator=torch.Generator().manual_seed(seed))
        return self.store.take(order[:number])

    def endless(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield self.store.take(torch.randint(len(self.store), (size,), generator=generator))


class StreamedExamples(Examples):
    """What a loader gives, cut anew: figures do not depend on the size of its batches.

    Arguments:
        loader: gives the batches, anew each time that it is gone through.
        input_key: see :func:`x_of`.

    Raises:
        InputError: it gives no batch, or one without x, or can be gone through but once, as a generator.
    """

    # `some` looks at no more than this: a stream may have no end.
    _LOOK_AT = 1000

    def __init__(self, loader: Iterable[Any], input_key: int | str | None = None) -> None:
        if isinstance(loader, Iterator):
            raise InputError(f"data must be gone through more than once, got {type(loader).__name__}: give a loader or a list")
        self.loader, self.input_key = loader, input_key
        self.count = None
        for batch in loader:
            self.shape = tuple(x_of(batch, input_key).shape[1:])
            break
        else:
            raise InputError("data must give at least one batch, got none")

    def pieces(self, size: int) -> Iterator[Piece]:
        waiting: list[Piece] = []
        number = 0
        for batch in self.loader:
            x, labels = x_of(batch, self.input_key), labels_of(batch)
            waiting.append(Piece(x, labels if labels is not None and len(labels) == len(x) else None))
            number += len(x)
            while number >= size:
                whole = _joined(waiting)
                yield Piece(whole.x[:size], None if whole.labels is None else whole.labels[:size])
                number -= size
                waiting = [Piece(whole.x[size:], None if whole.labels is None else whole.labels[size:])] if number else []
        if number:
            yield _joined(waiting)

    def some(self, number: int, seed: int = 0) -> Tensor:
        seen = self.first(max(number, self._LOOK_AT))
        return seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))[:number]]

    def endless(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield from (piece.x for piece in self.pieces(size))


def _joined(pieces: list[Piece]) -> Piece:
    labels = [piece.labels for piece in pieces if piece.labels is not None]
    return Piece(torch.cat([piece.x for piece in pieces]), torch.cat(labels) if len(labels) == len(pieces) else None)


_STAGES = {"train": "fit", "valid": "validate", "test": "test"}


def loader_of(data: pl.LightningDataModule, split: str) -> Any:
    """The loader of a split of any data module, set up without a trainer.

    Raises:
        InputError: there is none.
    """
    name = {"train": "train_dataloader", "valid": "val_dataloader", "test": "test_dataloader"}[split]
    if getattr(type(data), name) is getattr(pl.LightningDataModule, name):
        raise InputError(f"split {split!r} is missing: {type(data).__name__} has no {name}")
    make: Callable[[], Any] = getattr(data, name)
    if data.trainer is None:
        data.prepare_data()
        data.setup(_STAGES[split])
    loader = make()
    if isinstance(loader, (list, tuple)) and loader:
        loader = loader[0]
    if isinstance(loader, DataLoader) or hasattr(loader, "__iter__"):
        return loader
    raise InputError(f"split {split!r}: {type(data).__name__}.{name} must give a loader, got {type(loader).__name__}")
