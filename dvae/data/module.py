"""The base of all data modules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from dvae.config import Configurable
from dvae.data.arrays import (
    BINARIZE,
    EVALUATE,
    LOOK,
    SPLITS,
    Splits,
    binarize,
    check_count,
    check_probabilities,
    check_seed,
    check_shape,
    compact,
    label_tensor,
    layout,
)
from dvae.data.batches import StoredExamples
from dvae.data.loader import TensorLoader
from dvae.data.splitting import check_fractions, hold_out
from dvae.data.stores import Changed, Store, Subset, TensorStore
from dvae.errors import InputError
from dvae.noise import mixed_seed

__all__ = ["DataModule"]


class DataModule(Configurable, pl.LightningDataModule):
    """Base of all data sets: a subclass writes ``read``, and hands the arguments below on.

    Example:
        >>> class Coins(dvae.data.DataModule):
        ...     def read(self):
        ...         return dvae.data.Splits(train=torch.eye(4), valid=torch.eye(4))
        >>> data = Coins(batch_size=2)
        >>> data.mean
        tensor([0.2500, 0.2500, 0.2500, 0.2500])

    The data are read at the first need of them and checked once: finite numbers, as many in every example of every split. Whether
    they are in its range, a model's likelihood says. Batches are float32 [B, D], cut on the trainer's device where there is a
    trainer. Under several processes ``batch_size`` is that of each, and splits that they do not share out evenly are filled up with
    a few of the split's own examples.

    Arguments:
        batch_size: examples in a training batch, on each process.
        eval_batch_size: examples in a validation or test batch.
        dynamic: take the data as probabilities: training batches are binary draws, fresh in every epoch, and validation and
            test set are drawn once. Otherwise the data are used as they are.
        drop_last: leave out the last training batch of an epoch where it is not full.
        seed: of the training's order and draws, not negative; it does not change the data set itself.
        data_seed: of what is drawn once: a hold-out, a fixed binarization, the order of the validation set, not negative. Results
            compare at equal ones only.
        image_shape: (channels, height, width); by default the arrays' own, or one square channel. Arrays with the channels behind,
            such as (32, 32, 3), are turned.
        divide_by: what all values are divided by as batches are cut: 255 makes grey levels in [0, 1] of bytes.
        workers: threads that read training batches ahead, where they come from files.
        valid_fraction, test_fraction: shares of the training set that become further splits, drawn by ``data_seed``, in (0, 1).

    Raises:
        InputError: an argument is out of its range; or, when the data are read, they cannot be, or are not as above.
    """

    def __init__(
        self,
        *,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        dynamic: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
        image_shape: Sequence[int] | None = None,
        divide_by: float = 1.0,
        workers: int = 0,
        valid_fraction: float | None = None,
        test_fraction: float | None = None,
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("eval_batch_size", eval_batch_size)
        check_seed("seed", seed)
        check_seed("data_seed", data_seed)
        check_seed("workers", workers)
        check_fractions(valid_fraction, test_fraction)
        if not divide_by > 0:
            raise InputError(f"divide_by must be positive, got {divide_by}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.dynamic = dynamic
        self.drop_last = drop_last
        self.seed = seed
        self.data_seed = data_seed
        self.divide_by = divide_by
        self.workers = workers
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self._given_shape = None if image_shape is None else check_shape(image_shape)

    def read(self) -> Splits:
        """Read the data set: arrays or tensors of numbers [N, ...], or stores. A subclass writes this."""
        raise NotImplementedError(f"{type(self).__name__} must define read(self) -> Splits")

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, all splits whatever the ``stage``; at most once."""
        _ = self._data

    @cached_property
    def _data(self) -> _Data:
        splits = self.read()
        given = {name: part for name, part in zip(SPLITS, splits[:3], strict=True) if part is not None}
        if "train" not in given:
            raise InputError("train must be given, got None")
        given, given_labels = hold_out(given, splits.labels or {}, self.valid_fraction, self.test_fraction, self.data_seed)
        parts = {name: part if isinstance(part, Store) else _held(compact(part, name)) for name, part in given.items()}
        pixels = {name: prod(part.shape) for name, part in parts.items()}
        if len(set(pixels.values())) > 1:
            raise InputError(f"all splits must have as many pixels as train, got {pixels}")
        shape, channels_last = layout(parts["train"].shape, self._given_shape)
        if shape is not None and prod(shape) != pixels["train"]:
            raise InputError(f"image_shape must have {pixels['train']} pixels, got {shape}")
        labels = {name: label_tensor(own, name, len(parts[name])) for name, own in given_labels.items() if name in parts}
        if channels_last or self.divide_by != 1:
            parts = {name: Changed(part, self.divide_by, channels_last) for name, part in parts.items()}
        if self.dynamic:
            return _Data(parts["train"], {name: self._drawn(part, name) for name, part in parts.items()}, labels, shape)
        return _Data(parts["train"], parts, labels, shape)

    def _drawn(self, part: Store, name: str) -> Store:
        """A split whose values are probabilities, drawn once."""
        if not part.in_memory:
            raise InputError("dynamic must be False for data that are read from files as they are needed, got True")
        probs = part.take(torch.arange(len(part)))
        check_probabilities(probs, name)
        return TensorStore(binarize(probs, mixed_seed(self.data_seed, BINARIZE, SPLITS.index(name))), part.shape)

    def split(self, name: str) -> Tensor:
        """One whole split as an evaluation sees it: [N, D], uint8 or int32 of integers and float32 otherwise.

        With ``dynamic`` it is drawn once, by ``data_seed``, the training set too.

        Arguments:
            name: "train", "valid" or "test".

        Raises:
            InputError: another name, or the data have no such split, or are not in memory.
        """
        store = self.store(name)
        if not store.in_memory:
            raise InputError(f"split {name!r} is not in memory: go through examples({name!r}).pieces(size)")
        return store.data if isinstance(store, TensorStore) else store.take(torch.arange(len(store)))

    def examples(self, name: str) -> StoredExamples:
        """One split as an evaluation goes through it, with its labels; arguments and errors as of :meth:`split`."""
        return StoredExamples(self.store(name), self._data.labels.get(name))

    @property
    def split_names(self) -> list[str]:
        """The splits that there are, out of "train", "valid" and "test"."""
        return list(self._data.splits)

    def store(self, name: str) -> Store:
        """Where the examples of a split are; arguments and errors as of :meth:`split`."""
        if name not in SPLITS:
            raise InputError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
        if name not in self._data.splits:
            raise InputError(
                f"split {name!r} is missing: this {type(self).__name__} has only {', '.join(self._data.splits)}; name one of them "
                "(split=, --split), or hold a share out"
            )
        return self._data.splits[name]

    def labels(self, name: str) -> Tensor | None:
        """The labels of a split, int64 [N]; None where it has none."""
        self.store(name)
        return self._data.labels.get(name)

    @property
    def in_memory(self) -> bool:
        """Whether all examples are held in memory; otherwise they are read as they are needed."""
        return all(part.in_memory for part in self._data.splits.values())

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the training set as the model sees it, float32 [D].

        Of data in files it is that of 20,000 examples, drawn by ``data_seed``.
        """
        total, count = self._sums()
        return (total / count).float()

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of the training set, as :attr:`mean`."""
        mean = self.mean.double()
        total, count = self._sums(mean)
        return (total / count).sqrt().float()

    def _sums(self, center: Tensor | None = None) -> tuple[Tensor, int]:
        """Sums over examples, or of squared distances from a center, float64 [D], and how many examples."""
        train = self._data.train
        places = torch.arange(len(train))
        if not train.in_memory and len(train) > _LOOKED_AT:
            generator = torch.Generator().manual_seed(mixed_seed(self.data_seed, LOOK))
            places = torch.randperm(len(train), generator=generator)[:_LOOKED_AT].sort().values

        def summed(part: Tensor) -> Tensor:
            return part.double().sum(0) if center is None else (part - center).square().sum(0)

        # In pieces: torch is slow to sum small integers, and the whole set in float64 would be eight times its size.
        return torch.stack([summed(train.take(part)) for part in places.split(1024)]).sum(0), len(places)

    are_images = True
    """Whether examples may be pictures; of tables and counts none are drawn."""

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(channels, height, width) of an image, for pictures; None where it is not known, or examples are none."""
        return self._data.image_shape if self.are_images else None

    @property
    def num_pixels(self) -> int:
        """D, the values in one example."""
        return prod(self._data.train.shape)

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of ``batch_size``; in order for a trainer that overfits, which wants the same ones in every epoch.

        For a module of several models, :class:`dvae.replicas.Replicas`, each model has its own: those of ``seed`` + its offset.
        """
        trainer: Any = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0
        loader = self._loader(
            self._data.train,
            self.batch_size,
            shuffle=not overfit,
            drop_last=self.drop_last,
            dynamic=self.dynamic,
            augment=True,
            workers=self.workers,
        )
        if trainer is not None:
            offsets = getattr(trainer.lightning_module, "seed_offsets", None)
            if offsets is not None:
                loader.seed = [self.seed + offset for offset in offsets]
            limit = trainer.limit_train_batches
            loader.epoch_batches = min(limit, len(loader)) if isinstance(limit, int) else int(limit * len(loader))
        return loader

    def val_dataloader(self) -> TensorLoader | list[TensorLoader]:
        """Batches of ``eval_batch_size``; none when the trainer fits and there is no validation set.

        They are in an order drawn by ``data_seed``, the same each time, so that the first of them are a fair sample of a set that
        is sorted by class.

        Raises:
            InputError: there is no validation set.
        """
        if "valid" not in self._data.splits and self.trainer is not None and self.trainer.state.fn == "fit":
            return []
        valid = self.store("valid")
        generator = torch.Generator().manual_seed(mixed_seed(self.data_seed, EVALUATE))
        return self._loader(Subset(valid, torch.randperm(len(valid), generator=generator)), self.eval_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Batches of ``eval_batch_size`` in order.

        Raises:
            InputError: there is no test set.
        """
        return self._loader(self.store("test"), self.eval_batch_size)

    def predict_dataloader(self) -> TensorLoader:
        """As :meth:`test_dataloader`."""
        return self.test_dataloader()

    def _binarized(self, splits: Splits) -> Splits:
        """All splits drawn once, by ``data_seed``; the values must be checked already, or be so by their making."""
        drawn = []
        for index, (part, name) in enumerate(zip(splits[:3], SPLITS, strict=True)):
            probs = compact(part, name)
            check_probabilities(probs, name)
            drawn.append(binarize(probs, mixed_seed(self.data_seed, BINARIZE, index)))
        return Splits(drawn[0], drawn[1], drawn[2], splits.labels)

    def _loader(self, data: Store, batch_size: int, **options: Any) -> TensorLoader:
        if self.trainer is None:
            return TensorLoader(data, batch_size=batch_size, seed=self.seed, **options)
        # Processes that train models of their own do not share the data out: each has all of them.
        apart = getattr(self.trainer.lightning_module, "apart", False)
        return TensorLoader(
            data.to(self.trainer.strategy.root_device),
            batch_size=batch_size,
            seed=self.seed,
            rank=0 if apart else self.trainer.global_rank,
            world_size=1 if apart else self.trainer.world_size,
            **options,
        )


# Examples of data in files that mean and standard deviation are taken of.
_LOOKED_AT = 20_000


class _Data(NamedTuple):
    train: Store
    splits: dict[str, Store]
    labels: dict[str, Tensor]
    image_shape: tuple[int, ...] | None


def _held(tensor: Tensor) -> TensorStore:
    return TensorStore(tensor.reshape(len(tensor), -1), tensor.shape[1:])
