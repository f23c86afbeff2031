"""Data sets as LightningDataModules: flat binary or grey-level images in [0, 1], cut into batches on the training device.

The bundled benchmark needs no download::

    data = BinarizedMNIST(batch_size=24)
    trainer.fit(model, data)

A data set of one's own is an array (:class:`ArrayData`), or a subclass of :class:`DataModule` with one method, ``read``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import ceil, isqrt, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from dvae.config import Configurable, instantiate
from dvae.errors import InputError

__all__ = [
    "MNIST",
    "ArrayData",
    "BinarizedMNIST",
    "DataModule",
    "FashionMNIST",
    "Omniglot",
    "Splits",
    "TensorLoader",
    "binarize",
    "data_module",
    "load_split",
]

Source = np.ndarray | Tensor | str | Path

SPLITS = ("train", "valid", "test")

# Every use of randomness has a stream of its own, so that e.g. a new order leaves the noise alone.
_ORDER, _NOISE, _HOLD_OUT, _BINARIZE = range(1, 5)


class Splits(NamedTuple):
    """What a data set consists of: arrays or tensors [N, ...] with values in [0, 1]; None where there is no such split."""

    train: Any
    valid: Any = None
    test: Any = None


class TensorLoader:
    """Cuts batches from one tensor on the tensor's own device; no workers, no collation.

    The order of epoch e, and the noise of its batch k, depend on (seed, e, k) alone. Iterating again moves on to the next epoch.
    Under several processes batch k of all ranks together is one batch of ``batch_size * world_size`` of the one order, and all
    ranks have equally many batches: the order is wrapped around to fill the last one up, or with ``drop_last`` cut short.
    A run that stops within an epoch resumes with the rest of its batches (``state_dict``, which Lightning saves).

    Arguments:
        data: values in [0, 1] [N, D]; uint8 or bool (0 and 1) or floating point.
        batch_size: examples in a batch, on each rank.
        shuffle: a new order in every epoch; the tensor's order otherwise.
        drop_last: leave out a last batch that is not full.
        dynamic: yield binary draws with the data as probabilities, fresh in every epoch.
        seed: of order and draws, not negative.
        rank: which share of the data is cut, 0 <= rank < world_size.
        world_size: number of shares.

    Yields:
        float32 [B, D].

    Raises:
        InputError: an argument is out of its range, or there is not one batch.
    """

    # Lightning looks for it wherever it finds a sampler.
    batch_sampler = None

    def __init__(
        self,
        data: Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        dynamic: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if data.ndim != 2 or len(data) == 0:
            raise InputError(f"data must be [N, D] with N >= 1, got {list(data.shape)}")
        _check_count("batch_size", batch_size)
        _check_count("world_size", world_size)
        _check_seed("seed", seed)
        if not 0 <= rank < world_size:
            raise InputError(f"rank must lie in [0, world_size), got rank {rank} of {world_size}")
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.dynamic = dynamic
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch = 0
        self._batch = 0
        self._resumed = False
        if len(self) == 0:
            raise InputError(
                f"batch_size must be at most {self._share} with drop_last, the examples of one rank, got {batch_size}"
            )

    @property
    def _share(self) -> int:
        examples = len(self.data)
        return examples // self.world_size if self.drop_last else ceil(examples / self.world_size)

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self._share // self.batch_size if self.drop_last else ceil(self._share / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: nothing here runs before the first batch is asked for, because Lightning makes the iterator first, and
        # sets the epoch afterwards.
        if self._batch >= len(self) or (self._batch > 0 and not self._resumed):
            self._epoch, self._batch = self._epoch + 1, 0
        self._resumed = False
        epoch, start = self._epoch, self._batch
        batches = self._order(epoch).split(self.batch_size)[: len(self)]
        noise = torch.Generator(self.data.device)
        for index in range(start, len(batches)):
            # Lightning does not fetch ahead of a loader with a length: what it saves during a step must count the step's batch.
            self._batch = index + 1
            batch = self.data[batches[index]].float()
            if self.dynamic:
                noise.manual_seed(_mix(self.seed, _NOISE, epoch, index, self.rank))
                batch = _draw(batch, noise)
            yield batch

    def _order(self, epoch: int) -> Tensor:
        examples, total = len(self.data), self._share * self.world_size
        if self.shuffle:
            # On the CPU, so that every device sees the same order.
            generator = torch.Generator().manual_seed(_mix(self.seed, _ORDER, epoch))
            order = torch.randperm(examples, generator=generator)
        else:
            order = torch.arange(examples)
        order = order.repeat(ceil(total / examples))[:total]
        return order[self.rank :: self.world_size].to(self.data.device)

    @property
    def sampler(self) -> TensorLoader:
        """Itself: Lightning announces the epoch to a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is ``epoch``, from its start or, after ``load_state_dict``, from where the state stands in it."""
        if not (self._resumed and epoch == self._epoch):
            self._epoch, self._batch, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """The position, the same on every rank: the epoch, and how many of its batches have been handed out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go to a position that ``state_dict`` gave; the next iteration yields the rest of that epoch.

        Raises:
            InputError: it holds no position within an epoch of this loader.
        """
        epoch, batch = state_dict.get("epoch"), state_dict.get("batch")
        if not (isinstance(epoch, int) and isinstance(batch, int) and epoch >= 0 and 0 <= batch <= len(self)):
            raise InputError(
                f"state_dict must hold an epoch and a batch of at most {len(self)}, the batches in an epoch, got {dict(state_dict)}"
            )
        self._epoch, self._batch, self._resumed = epoch, batch, True


class DataModule(Configurable, pl.LightningDataModule):
    """Base of all data sets: a subclass writes ``read``, and hands the arguments below on.

    Example:
        >>> class Coins(DataModule):
        ...     def read(self) -> Splits:
        ...         return Splits(train=np.eye(4), valid=np.eye(4))
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
        _check_count("batch_size", batch_size)
        _check_count("eval_batch_size", eval_batch_size)
        _check_seed("seed", seed)
        _check_seed("data_seed", data_seed)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.dynamic = dynamic
        self.drop_last = drop_last
        self.seed = seed
        self.data_seed = data_seed
        self._given_shape = None if image_shape is None else tuple(image_shape)

    def read(self) -> Splits:
        """Read the data set: arrays or tensors [N, ...] with values in [0, 1]. A subclass writes this."""
        raise NotImplementedError(f"{type(self).__name__} must define read(self) -> Splits")

    def setup(self, stage: str | None = None) -> None:
        """Read and check the data, all splits whatever the ``stage``; at most once."""
        _ = self._data

    @cached_property
    def _data(self) -> _Data:
        splits = self.read()
        checked = {name: _check(part, name) for name, part in zip(SPLITS, splits, strict=True) if part is not None}
        if "train" not in checked:
            raise InputError(f"train must be given, got only {sorted(checked)}")
        pixels = {name: part.shape[1:].numel() for name, part in checked.items()}
        if len(set(pixels.values())) > 1:
            raise InputError(f"all splits must have as many pixels as train, got {pixels}")
        shape = self._given_shape or _guess_shape(checked["train"].shape[1:])
        if shape is not None and prod(shape) != pixels["train"]:
            raise InputError(f"image_shape must have {pixels['train']} pixels, got {shape}")
        flat = {name: part.reshape(len(part), -1) for name, part in checked.items()}
        train = flat["train"]
        if self.dynamic:
            flat = {name: binarize(part, _mix(self.data_seed, _BINARIZE, SPLITS.index(name))) for name, part in flat.items()}
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
        total = train.sum(0, dtype=torch.float64 if train.is_floating_point() else torch.int64)
        return (total.double() / len(train)).float()

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(channels, height, width) of an image, for pictures; None where it is not known."""
        return self._data.image_shape

    @property
    def num_pixels(self) -> int:
        """D, the values in one example."""
        return self._data.train.shape[1]

    def train_dataloader(self) -> TensorLoader:
        """Shuffled batches of ``batch_size``, in the trainer's epoch order."""
        # Overfitting means the same batches in every epoch; Lightning announces that it turns the shuffling off, but cannot.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0
        return self._loader(
            self._data.train, self.batch_size, shuffle=not overfit, drop_last=self.drop_last, dynamic=self.dynamic
        )

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

    def _loader(self, data: Tensor, batch_size: int, **options: bool) -> TensorLoader:
        if self.trainer is None:
            return TensorLoader(data, batch_size=batch_size, seed=self.seed, **options)
        return TensorLoader(
            data.to(self.trainer.strategy.root_device),
            batch_size=batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            **options,
        )


class ArrayData(DataModule):
    """Data of one's own: arrays, tensors or files.

    Example:
        >>> data = ArrayData(np.eye(16), valid_fraction=0.25)
        >>> data.split("valid").shape, data.image_shape
        (torch.Size([4, 16]), (1, 4, 4))

    Arguments:
        train: array or tensor [N, ...] in [0, 1], or a path. A ``.npy`` file holds one array; a ``.npz`` file holds one array,
            or several of which those named train, valid and test are taken.
        valid: likewise; by default the ``.npz`` file's, if any.
        test: likewise.
        valid_fraction: share of the training set that becomes the validation set, drawn by ``data_seed``, in (0, 1).
        packed_size: number of pixels D where the arrays are bits as ``numpy.packbits(..., axis=1)`` packs them: uint8 [N, ceil(D / 8)].
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
            _check_count("packed_size", packed_size)
        self.valid_fraction = valid_fraction
        self.packed_size = packed_size
        self._sources = {"train": train, "valid": valid, "test": test}
        self.setup()

    def read(self) -> Splits:
        parts = dict(_arrays(self._sources["train"], "train"))
        for name in ("valid", "test"):
            if (source := self._sources[name]) is not None:
                parts[name] = _pick(_arrays(source, name), name, source)
        parts["train"] = _pick(_arrays(self._sources["train"], "train"), "train", self._sources["train"])
        if self.packed_size is not None:
            parts = {name: _unpack(part, self.packed_size, name) for name, part in parts.items()}
        if self.valid_fraction is not None:
            if "valid" in parts:
                raise InputError(f"valid_fraction must be left out where a validation set is given, got {self.valid_fraction}")
            parts["train"], parts["valid"] = self._hold_out(parts["train"], self.valid_fraction)
        return Splits(**{name: part for name, part in parts.items() if name in SPLITS})
