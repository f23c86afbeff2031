"""The base of all data modules, and that for arrays and files."""

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
    HOLD_OUT,
    SPLITS,
    Source,
    Splits,
    arrays_of,
    binarize,
    check_count,
    check_seed,
    check_shape,
    compact,
    guess_shape,
    number_tensor,
    pick,
    unpacked,
)
from dvae.data.loader import TensorLoader
from dvae.errors import InputError
from dvae.noise import mixed_seed

__all__ = ["ArrayData", "DataModule"]


class DataModule(Configurable, pl.LightningDataModule):
    """Base of all data sets: a subclass writes ``read``, and hands the arguments below on.

    Example:
        >>> class Coins(dvae.data.DataModule):
        ...     def read(self):
        ...         return dvae.data.Splits(train=torch.eye(4), valid=torch.eye(4))
        >>> data = Coins(batch_size=2)
        >>> data.mean
        tensor([0.2500, 0.2500, 0.2500, 0.2500])

    The data are read at the first need of them and checked once: finite, in [0, 1], as many pixels in every split. Batches are
    float32 [B, D], cut on the trainer's device where there is a trainer. Under several processes ``batch_size`` is that of each,
    and splits that they do not share out evenly are filled up with a few of the split's own examples.

    Arguments:
        batch_size: examples in a training batch, on each process.
        eval_batch_size: examples in a validation or test batch.
        dynamic: take the data as probabilities: training batches are binary draws, fresh in every epoch, and validation and
            test set are drawn once. Otherwise the data are used as they are.
        drop_last: leave out the last training batch of an epoch where it is not full.
        seed: of the training's order and draws, not negative; it does not change the data set itself.
        data_seed: of what is drawn once: a hold-out and a fixed binarization, not negative. Results compare at equal ones only.
        image_shape: (channels, height, width); by default the arrays' own, or one square channel.

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
    ) -> None:
        super().__init__()
        check_count("batch_size", batch_size)
        check_count("eval_batch_size", eval_batch_size)
        check_seed("seed", seed)
        check_seed("data_seed", data_seed)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.dynamic = dynamic
        self.drop_last = drop_last
        self.seed = seed
        self.data_seed = data_seed
        self._given_shape = None if image_shape is None else check_shape(image_shape)

    def read(self) -> Splits:
        """Read the data set: arrays or tensors [N, ...] with values in [0, 1]. A subclass writes this."""
        raise NotImplementedError(f"{type(self).__name__} must define read(self) -> Splits")

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, all splits whatever the ``stage``; at most once."""
        _ = self._data

    @cached_property
    def _data(self) -> _Data:
        splits = self.read()
        checked = {name: compact(part, name) for name, part in zip(SPLITS, splits, strict=True) if part is not None}
        if "train" not in checked:
            raise InputError("train must be given, got None")
        pixels = {name: part.shape[1:].numel() for name, part in checked.items()}
        if len(set(pixels.values())) > 1:
            raise InputError(f"all splits must have as many pixels as train, got {pixels}")
        shape = self._given_shape or guess_shape(checked["train"].shape[1:])
        if shape is not None and prod(shape) != pixels["train"]:
            raise InputError(f"image_shape must have {pixels['train']} pixels, got {shape}")
        flat = {name: part.reshape(len(part), -1) for name, part in checked.items()}
        train = flat["train"]
        if self.dynamic:
            flat = {name: binarize(part, mixed_seed(self.data_seed, BINARIZE, SPLITS.index(name))) for name, part in flat.items()}
        return _Data(train, flat, shape)

    def split(self, name: str) -> Tensor:
        """One whole split as an evaluation sees it: [N, D], uint8 where all values are 0 or 1 and float32 otherwise.

        With ``dynamic`` it is drawn once, by ``data_seed``, the training set too.

        Arguments:
            name: "train", "valid" or "test".

        Raises:
            InputError: another name, or the data have no such split.
        """
        if name not in SPLITS:
            raise InputError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
        if name not in self._data.splits:
            raise InputError(f"split {name!r} is missing: this {type(self).__name__} has only {', '.join(self._data.splits)}")
        return self._data.splits[name]

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the training set as the model sees it, float32 [D]."""
        train = self._data.train
        # In pieces: torch is slow to sum small integers, and the whole set in float64 would be eight times its size.
        total = torch.stack([part.double().sum(0) for part in train.split(1024)]).sum(0)
        return (total / len(train)).float()

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(channels, height, width) of an image, for pictures; None where it is not known."""
        return self._data.image_shape

    @property
    def num_pixels(self) -> int:
        """D, the values in one example."""
        return self._data.train.shape[1]

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of ``batch_size``; in order for a trainer that overfits, which wants the same ones in every epoch.

        For a module of several models, :class:`dvae.replicas.Replicas`, each model has its own: those of ``seed`` + its offset.
        """
        trainer: Any = self.trainer
        overfit = trainer is not None and trainer.overfit_batches > 0
        loader = self._loader(
            self._data.train, self.batch_size, shuffle=not overfit, drop_last=self.drop_last, dynamic=self.dynamic
        )
        if trainer is not None:
            offsets = getattr(trainer.lightning_module, "seed_offsets", None)
            if offsets is not None:
                loader.seed = [self.seed + offset for offset in offsets]
            limit = trainer.limit_train_batches
            loader.epoch_batches = min(limit, len(loader)) if isinstance(limit, int) else int(limit * len(loader))
        return loader

    def val_dataloader(self) -> TensorLoader | list[TensorLoader]:
        """Batches of ``eval_batch_size`` in order; none when the trainer fits and there is no validation set.

        Raises:
            InputError: there is no validation set.
        """
        if "valid" not in self._data.splits and self.trainer is not None and self.trainer.state.fn == "fit":
            return []
        return self._loader(self.split("valid"), self.eval_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Batches of ``eval_batch_size`` in order.

        Raises:
            InputError: there is no test set.
        """
        return self._loader(self.split("test"), self.eval_batch_size)

    def predict_dataloader(self) -> TensorLoader:
        """As :meth:`test_dataloader`."""
        return self.test_dataloader()

    def _binarized(self, splits: Splits) -> Splits:
        """All splits drawn once, by ``data_seed``; the values must be checked already, or be so by their making."""
        drawn = (mixed_seed(self.data_seed, BINARIZE, index) for index in range(len(splits)))
        return Splits(*(binarize(compact(part, name), seed) for part, name, seed in zip(splits, SPLITS, drawn, strict=True)))

    def _loader(self, data: Tensor, batch_size: int, **options: bool) -> TensorLoader:
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


class ArrayData(DataModule):
    """Data of one's own: arrays, tensors or files.

    Example:
        >>> data = dvae.data.ArrayData(torch.eye(16), valid_fraction=0.25)
        >>> data.split("valid").shape, data.image_shape
        (torch.Size([4, 16]), (1, 4, 4))

    Arguments:
        train: array or tensor [N, ...] in [0, 1], or a path. A ``.npy`` file holds one array; a ``.npz`` file holds one array,
            or several of which those named train, valid and test are taken.
        valid: likewise; by default the ``.npz`` file's, if any.
        test: likewise.
        valid_fraction: share of the training set that becomes the validation set, drawn by ``data_seed``, in (0, 1).
        packed_size: number of pixels D where the arrays are packed bits, uint8 [N, ceil(D / 8)], as
            ``numpy.packbits(..., axis=1)`` makes them.
        batch_size, eval_batch_size, dynamic, drop_last, seed, data_seed, image_shape: see :class:`DataModule`.

    Raises:
        InputError: a file cannot be read, values are not in [0, 1], shapes do not fit, or an argument is out of its range.
    """

    def __init__(
        self,
        train: Source,
        valid: Source | None = None,
        test: Source | None = None,
        *,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        dynamic: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
        image_shape: Sequence[int] | None = None,
        valid_fraction: float | None = None,
        packed_size: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            dynamic=dynamic,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
            image_shape=image_shape,
        )
        if valid_fraction is not None and not 0 < valid_fraction < 1:
            raise InputError(f"valid_fraction must lie in (0, 1), got {valid_fraction}")
        if packed_size is not None:
            check_count("packed_size", packed_size)
        self.valid_fraction = valid_fraction
        self.packed_size = packed_size
        self._sources = {"train": train, "valid": valid, "test": test}
        self.setup()

    def read(self) -> Splits:
        parts = arrays_of(self._sources["train"], "train")
        parts |= {"train": pick(parts, "train")}
        for name in ("valid", "test"):
            if (source := self._sources[name]) is not None:
                parts[name] = pick(arrays_of(source, name), name)
        parts = {name: parts[name] for name in SPLITS if name in parts}
        if self.packed_size is not None:
            parts = {name: unpacked(part, self.packed_size, name) for name, part in parts.items()}
        if self.valid_fraction is not None:
            if "valid" in parts:
                raise InputError(f"valid_fraction must be None where there is a validation set already, got {self.valid_fraction}")
            parts["train"], parts["valid"] = self._hold_out(parts["train"], self.valid_fraction)
        return Splits(**parts)

    def _hold_out(self, train: Any, fraction: float) -> tuple[Any, Any]:
        train = number_tensor(train, "train")
        held = round(fraction * len(train))
        if not 0 < held < len(train):
            raise InputError(f"valid_fraction must leave both sets an example, got {fraction} of {len(train)}")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(mixed_seed(self.data_seed, HOLD_OUT)))
        return train[order[held:].sort().values], train[order[:held].sort().values]


class _Data(NamedTuple):
    train: Tensor
    splits: dict[str, Tensor]
    image_shape: tuple[int, ...] | None
