"""Data sets as LightningDataModules: flat binary or grey-level images in [0, 1], cut into batches on the training device.

The bundled benchmark needs no download::

    data = BinarizedMNIST(batch_size=24)
    trainer.fit(model, data)

A data set of one's own is an array (:class:`ArrayData`), or a subclass of :class:`DataModule` with one method, ``read``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import ceil, isqrt, prod
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from dvae.config import Configurable, class_paths, instantiate
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
    "bundled_folder",
    "data_module",
    "load_split",
]

Source = np.ndarray | Tensor | str | Path

SPLITS = ("train", "valid", "test")

# Every use of randomness has a stream of its own, so that e.g. a new order leaves the noise alone.
# A compressed file can unpack to any size; data that is larger than this belongs into a data module of its own.
_MAX_BYTES = 2**32
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
    A run that stops anywhere resumes with the very batches that were to come (``state_dict``, which Lightning saves).

    Arguments:
        data: values in [0, 1] [N, D]; uint8 or bool (0 and 1) or floating point.
        batch_size: examples in a batch, on each rank.
        shuffle: a new order in every epoch; the tensor's order otherwise.
        drop_last: leave out a last batch that is not full.
        dynamic: yield binary draws with the data as probabilities, fresh in every epoch.
        seed: of order and draws, not negative. Several seeds give as many batches at once, each in its own order.
        rank: which share of the data is cut, 0 <= rank < world_size.
        world_size: number of shares.

    Attributes:
        epoch_batches: after how many batches an epoch is over; all of them, unless set to fewer.

    Yields:
        float32 [B, D]; [R, B, D] for R seeds.

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
        seed: int | Sequence[int] = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if data.ndim != 2 or len(data) == 0:
            raise InputError(f"data must be [N, D] with N >= 1, got {list(data.shape)}")
        _check_count("batch_size", batch_size)
        _check_count("world_size", world_size)
        for one in seed if isinstance(seed, Sequence) else [seed]:
            _check_seed("seed", one)
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
        self._loaded = False
        self.epoch_batches = len(self)
        if self.epoch_batches == 0:
            raise InputError(f"batch_size must be at most {self._share} with drop_last, the examples of one rank, got {batch_size}")

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
        if self._batch >= self.epoch_batches or (self._batch > 0 and not self._loaded):
            self._epoch, self._batch = self._epoch + 1, 0
        epoch, start = self._epoch, self._batch
        orders = torch.stack([self._order(seed, epoch) for seed in self._seeds])
        batches = orders.split(self.batch_size, dim=1)[: min(self.epoch_batches, len(self))]
        noise = torch.Generator(self.data.device)
        for index in range(start, len(batches)):
            # Lightning does not fetch ahead of a loader with a length: what it saves during a step must count the step's batch.
            self._batch = index + 1
            chosen = batches[index]
            # Indexing would copy element by element, not row by row.
            batch = self.data.index_select(0, chosen.flatten()).unflatten(0, chosen.shape).float()
            if self.dynamic:
                seeds = [_mix(seed, _NOISE, epoch, index, self.rank) for seed in self._seeds]
                batch = torch.stack([_draw(own, noise.manual_seed(seed)) for own, seed in zip(batch, seeds, strict=True)])
            yield batch if self.several else batch[0]

    @property
    def several(self) -> bool:
        """Whether there are several seeds, and so several batches at once."""
        return isinstance(self.seed, Sequence)

    @property
    def _seeds(self) -> Sequence[int]:
        return self.seed if isinstance(self.seed, Sequence) else [self.seed]

    def _order(self, seed: int, epoch: int) -> Tensor:
        examples, total = len(self.data), self._share * self.world_size
        if self.shuffle:
            # On the CPU, so that every device sees the same order.
            generator = torch.Generator().manual_seed(_mix(seed, _ORDER, epoch))
            order = torch.randperm(examples, generator=generator)
        else:
            order = torch.arange(examples)
        order = order.repeat(ceil(total / examples))[:total]
        return order[self.rank :: self.world_size].to(self.data.device)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch: the next iteration is that one."""
        self._epoch, self._batch, self._loaded = epoch, 0, False

    @property
    def sampler(self) -> _Announced:
        """What Lightning announces the epoch to."""
        return _Announced(self)

    def state_dict(self) -> dict[str, int]:
        """The position, the same on every rank: the epoch, and how many of its batches have been handed out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go to a position that ``state_dict`` gave; the next iteration yields the rest of that epoch, if there is any.

        From here on an iteration that is broken off is taken up by the next one.

        Raises:
            InputError: it holds no position within an epoch of this loader.
        """
        epoch, batch = state_dict.get("epoch"), state_dict.get("batch")
        if not (isinstance(epoch, int) and isinstance(batch, int) and epoch >= 0 and 0 <= batch <= len(self)):
            raise InputError(
                f"state_dict must hold an epoch and a batch of at most {len(self)}, the batches in an epoch, got {dict(state_dict)}"
            )
        self._epoch, self._batch, self._loaded = epoch, batch, True


class _Announced:
    """Passes an announced epoch on to a loader, unless that follows a position it has loaded.

    The position knows better: resumed from the end of an epoch with ``max_steps``, Lightning (2.6) first runs an epoch of no batch
    or of one, counts it, and announces the next. When it loads no position, as with ``max_epochs``, its announcement is right.
    """

    def __init__(self, loader: TensorLoader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        if not self._loader._loaded:
            self._loader.set_epoch(epoch)


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
        self._given_shape = None if image_shape is None else _check_shape(image_shape)

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
            raise InputError("train must be given, got None")
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

    def _binarized(self, splits: Splits) -> Splits:
        """All splits drawn once, by ``data_seed``; the values must be checked already, or be so by their making."""
        drawn = (_mix(self.data_seed, _BINARIZE, index) for index in range(len(splits)))
        return Splits(*(binarize(_check(part, name), seed) for part, name, seed in zip(splits, SPLITS, drawn, strict=True)))

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
            _check_count("packed_size", packed_size)
        self.valid_fraction = valid_fraction
        self.packed_size = packed_size
        self._sources = {"train": train, "valid": valid, "test": test}
        self.setup()

    def read(self) -> Splits:
        parts = _arrays(self._sources["train"], "train")
        parts |= {"train": _pick(parts, "train")}
        for name in ("valid", "test"):
            if (source := self._sources[name]) is not None:
                parts[name] = _pick(_arrays(source, name), name)
        parts = {name: parts[name] for name in SPLITS if name in parts}
        if self.packed_size is not None:
            parts = {name: _unpack(part, self.packed_size, name) for name, part in parts.items()}
        if self.valid_fraction is not None:
            if "valid" in parts:
                raise InputError(f"valid_fraction must be None where there is a validation set already, got {self.valid_fraction}")
            parts["train"], parts["valid"] = self._hold_out(parts["train"], self.valid_fraction)
        return Splits(**parts)

    def _hold_out(self, train: Any, fraction: float) -> tuple[Any, Any]:
        train = _tensor(train, "train")
        held = round(fraction * len(train))
        if not 0 < held < len(train):
            raise InputError(f"valid_fraction must leave both sets an example, got {fraction} of {len(train)}")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(_mix(self.data_seed, _HOLD_OUT)))
        return train[order[held:].sort().values], train[order[:held].sort().values]


class BinarizedMNIST(DataModule):
    """MNIST binarized once: 50,000 / 10,000 / 10,000 images of 28 x 28 pixels that are 0 or 1.

    The bundled draw is the project's own. The field's (Salakhutdinov & Murray, On the quantitative analysis of deep belief
    networks, 2008), which the published numbers are about, is another one: give its ``path`` to compare with those.

    Arguments:
        batch_size, seed, eval_batch_size, drop_last: see :class:`DataModule`.
        path: another binarization: a ``.npz`` file with arrays train, valid and test, bit-packed uint8 [N, 98] or plain [N, 784],
            or a folder with the public text files ``binarized_mnist_{train,valid,test}.amat``. By default the bundled one.

    Raises:
        InputError: the path cannot be read, or does not hold 0 and 1 in three splits of 784 pixels.
    """

    def __init__(
        self,
        batch_size: int = 24,
        seed: int = 0,
        path: str | Path | None = None,
        *,
        eval_batch_size: int = 100,
        drop_last: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, drop_last=drop_last, seed=seed)
        self.path = path
        self.setup()

    def read(self) -> Splits:
        path = bundled_folder("data") / "binarized_mnist.npz" if self.path is None else Path(self.path)
        if path.is_dir():
            arrays = {name: _read_amat(path / f"binarized_mnist_{name}.amat") for name in SPLITS}
        else:
            arrays = _arrays(path, "path")
        if missing := [name for name in SPLITS if name not in arrays]:
            raise InputError(f"path must hold train, valid and test, but {path} lacks {', '.join(missing)}")
        return Splits(**{name: self._images(arrays[name], f"{name} in {path}") for name in SPLITS})

    @staticmethod
    def _images(array: np.ndarray, name: str) -> np.ndarray:
        pixels = (
            _unpack(array, 784, name) if array.dtype == np.uint8 and array.shape[1:] == (98,) else array.reshape(len(array), -1)
        )
        if pixels.shape[1] != 784:
            raise InputError(f"{name} must be [N, 784], or [N, 98] of packed bits, got {list(array.shape)} of {array.dtype}")
        if not ((pixels == 0) | (pixels == 1)).all():
            raise InputError(f"{name} must hold only 0 and 1, got other values")
        return pixels


class MNIST(DataModule):
    """MNIST's grey levels as probabilities, through torchvision; the last sixth of its training images is the validation set.

    Arguments:
        root: folder in torchvision's layout: the four unpacked IDX files are in ``root/MNIST/raw``.
        dynamic: draw training batches afresh in every epoch; otherwise all images once, by ``data_seed``.
        download: fetch the files if they are not there.
        batch_size, eval_batch_size, drop_last, seed, data_seed: see :class:`DataModule`.

    Raises:
        InputError: (when the data are read) the files are missing or damaged, or could not be fetched.
    """

    dataset = "MNIST"

    def __init__(
        self,
        root: str | Path,
        dynamic: bool = True,
        download: bool = False,
        *,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            dynamic=dynamic,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
        )
        self.root = Path(root)
        self.download = download

    def prepare_data(self) -> None:
        """Fetch the files, on one process only, if ``download``."""
        if self.download:
            self._images(train=True)

    def read(self) -> Splits:
        images, test = self._images(train=True), self._images(train=False)
        first = len(images) - len(images) // 6
        parts = Splits(images[:first], images[first:], test)
        return parts if self.dynamic else self._binarized(parts)

    def _images(self, train: bool) -> Tensor:
        from torchvision import datasets

        try:
            grey = getattr(datasets, self.dataset)(self.root, train=train, download=self.download).data
        except Exception as error:  # torchvision raises whatever the damaged bytes or the network lead to
            hint = "could not be fetched" if self.download else "download=True fetches them"
            raise InputError(
                f"root must hold the four unpacked IDX files of {self.dataset} in {self.root / self.dataset / 'raw'}; {hint} "
                f"({_reason(error)})"
            ) from None
        return grey.float().div_(255)


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 28 x 28 pictures of clothes; otherwise as :class:`MNIST`."""

    dataset = "FashionMNIST"


class Omniglot(DataModule):
    """Omniglot's characters in 28 x 28 pixels, as Burda et al. (2016) prepared them: ``chardata.mat``.

    The file's 24,345 training images give 23,000 and, the last ones, 1,345 for validation (a smaller file: the same share);
    8,070 are the test set. Needs scipy.

    Arguments:
        path: the file, MATLAB version 5, with ``data`` [784, N] and ``testdata`` [784, M] in [0, 1], each image column by column.
        dynamic: draw training batches afresh in every epoch; otherwise all images once, by ``data_seed``.
        batch_size, eval_batch_size, drop_last, seed, data_seed: see :class:`DataModule`.

    Raises:
        InputError: scipy is not installed, or the file cannot be read or does not hold the two arrays.
    """

    def __init__(
        self,
        path: str | Path = "chardata.mat",
        dynamic: bool = False,
        *,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            dynamic=dynamic,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
        )
        self.path = Path(path)
        self.setup()

    def read(self) -> Splits:
        try:
            from scipy.io import loadmat
        except ImportError:
            raise InputError("Omniglot needs scipy, which is not installed: pip install dvae[omniglot]") from None
        _check_file(self.path, "path")
        try:
            content = loadmat(self.path, variable_names=("data", "testdata"))
        except Exception as error:  # scipy raises whatever the damaged bytes lead to
            raise InputError(f"path must be a MATLAB v5 file, but {self.path} cannot be read as one ({_reason(error)})") from None
        images, test = (self._images(content, key) for key in ("data", "testdata"))
        first = len(images) - max(1, round(len(images) * 1345 / 24345))
        parts = Splits(images[:first], images[first:], test)
        return parts if self.dynamic else self._binarized(parts)

    def _images(self, content: Mapping[str, Any], key: str) -> Tensor:
        array = content.get(key)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[0] != 784:
            given = list(array.shape) if isinstance(array, np.ndarray) else "nothing"
            raise InputError(f"path: {key} in {self.path} must be [784, N], got {given}")
        return _tensor(array.T.reshape(-1, 28, 28).swapaxes(1, 2), f"{key} in {self.path}")


def data_module(source: Any = None, *, trust: bool = False) -> pl.LightningDataModule:
    """The data module that ``source`` means.

    Arguments:
        source: a data module, which is returned; a config of one (``module.config``); None or "bundled" for
            :class:`BinarizedMNIST`, and so do a folder of ``.amat`` files or a bit-packed ``.npz``; another ``.npz`` or ``.npy``
            file for :class:`ArrayData`; a ``.mat`` file for :class:`Omniglot`; or an array or a tensor, the training set.
        trust: import a class from outside ``dvae`` that a config names.

    Raises:
        InputError: it is none of these, or the data cannot be read.
    """
    if isinstance(source, pl.LightningDataModule):
        return source
    if source is None or (isinstance(source, str) and source == "bundled"):
        return BinarizedMNIST()
    if isinstance(source, Mapping):
        foreign = [name for name in class_paths(source) if not name.startswith("dvae.")]
        if foreign and not trust:
            raise InputError(
                f"data: its config names classes outside dvae ({', '.join(foreign)}); importing them runs their code: "
                "pass --trust (trust=True) if you know where it comes from"
            )
        return instantiate(source, DataModule, "data")
    if isinstance(source, (np.ndarray, Tensor)):
        return ArrayData(source)
    if not isinstance(source, (str, Path)):
        raise InputError(f"data must be a data module, its config, an array or a path, got {type(source).__name__}")
    path = Path(source)
    if path.is_dir():
        return BinarizedMNIST(path=path)
    _check_file(path, "data")
    if path.suffix == ".mat":
        return Omniglot(path)
    if path.suffix == ".npz" and _holds_packed_mnist(path):
        return BinarizedMNIST(path=path)
    return ArrayData(path)


def load_split(source: Any = None, split: str = "test", *, trust: bool = False) -> Tensor:
    """One split of a data set as an evaluation sees it: [N, D], uint8 or float32.

    Arguments:
        source: see :func:`data_module`.
        split: "train", "valid" or "test".
        trust: see :func:`data_module`.

    Raises:
        InputError: the data cannot be read, or have no such split.
    """
    module = data_module(source, trust=trust)
    if not isinstance(module, DataModule):
        raise InputError(f"data must be a dvae.data.DataModule to take a split from, got {type(module).__name__}")
    return module.split(split)


def bundled_folder(name: str) -> Path:
    """Folder "data" or "configs" that came with the package.

    Raises:
        InputError: it is not there: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    installed = package / "bundled"
    # A wheel carries both inside the package, the data set without a folder of its own; in a checkout they lie beside it.
    folder = (installed / name if name != "data" else installed) if installed.is_dir() else package.parent / name
    if not folder.is_dir():
        raise InputError(f"{name}: the package's own folder {folder} is missing; install dvae again")
    return folder


def binarize(probs: Tensor, seed: int) -> Tensor:
    """Draw every value once from Bernoulli(probs): uint8 of the same shape, the same for the same seed."""
    if not probs.is_floating_point():
        return probs.to(torch.uint8)
    return _draw(probs, torch.Generator(probs.device).manual_seed(seed)).to(torch.uint8)


class _Data(NamedTuple):
    train: Tensor
    splits: dict[str, Tensor]
    image_shape: tuple[int, ...] | None


def _draw(probs: Tensor, generator: torch.Generator) -> Tensor:
    # Uniforms lie in [0, 1): a probability of 0 never, of 1 always gives 1.
    return (torch.rand(probs.shape, generator=generator, device=probs.device) < probs).float()


def _mix(*numbers: int) -> int:
    """One 64-bit seed from several numbers, such that neighbouring numbers give unrelated streams."""
    # SeedSequence pads with zeros, so that (1,) and (1, 0) would be one seed: the length goes first.
    return int(np.random.SeedSequence([len(numbers), *numbers]).generate_state(1, np.uint64)[0])


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, got {value!r}")


def _check_seed(name: str, value: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise InputError(f"{name} must be an integer of at least 0, got {value!r}")


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"image_shape must be three positive integers (channels, height, width), got {shape!r}")
    return tuple(shape)


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        raise InputError(f"{name} must be a file, got {path}, which {'is a folder' if path.is_dir() else 'does not exist'}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _guess_shape(event: Sequence[int]) -> tuple[int, ...] | None:
    if len(event) == 3:
        return tuple(event)
    if len(event) == 2:
        return (1, *event)
    side = isqrt(event[0]) if len(event) == 1 else 0
    return (1, side, side) if side > 0 and side * side == event[0] else None


def _tensor(array: Any, name: str) -> Tensor:
    """A tensor of numbers [N, ...] on the CPU: uint8 for bool and integers, float32 otherwise; values are checked in passing."""
    if not isinstance(array, Tensor):
        try:
            array = np.asarray(array)
        except (ValueError, TypeError) as error:
            raise InputError(f"{name} must be an array of numbers, got {_reason(error)}") from None
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name} must be an array of numbers, got dtype {array.dtype}")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        # Copied: the caller's array may change, be read-only, or have strides or a byte order that torch does not take.
        array = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    array = array.detach().cpu()
    if array.is_complex():
        raise InputError(f"{name} must be an array of numbers in [0, 1], got dtype {array.dtype}")
    if array.ndim < 2 or array.numel() == 0:
        raise InputError(f"{name} must be [N, ...] with at least one example and one pixel, got {list(array.shape)}")
    # In the given precision, before rounding could pull a value into the range. A NaN passes on into both.
    low, high = (array.to(torch.int64) if array.dtype == torch.bool else array).aminmax()
    if not (low >= 0 and high <= 1):
        hint = "; divide grey levels by 255" if high > 1 and not array.is_floating_point() else ""
        raise InputError(f"{name} must have values in [0, 1], got values from {low.item():g} to {high.item():g}{hint}")
    return array.to(torch.float32 if array.is_floating_point() else torch.uint8, copy=True)


def _check(array: Any, name: str) -> Tensor:
    """Checked, and compact: uint8 if all values are 0 or 1, float32 otherwise."""
    tensor = _tensor(array, name)
    binary = not tensor.is_floating_point() or bool(((tensor == 0) | (tensor == 1)).all())
    return tensor.to(torch.uint8) if binary else tensor


def _arrays(source: Any, name: str) -> dict[str, Any]:
    """The arrays of a source by their names in its file; one that has no name gets ``name``."""
    if isinstance(source, Mapping) and "given_as" in source:
        raise InputError(
            f"{name} was given as an object of type {source['given_as']}, which a config does not hold; pass the data again"
        )
    if not isinstance(source, (str, Path)):
        return {name: source}
    path = Path(source)
    _check_file(path, name)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {name: loaded}
        with loaded:
            size = sum(member.file_size for member in loaded.zip.infolist())
            if size > _MAX_BYTES:
                raise InputError(f"{name}: {path} must hold at most {_MAX_BYTES} bytes, it unpacks to {size}")
            return {key: loaded[key] for key in loaded.files}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever the damaged bytes lead to
        if "allow_pickle" in str(error) and path.suffix in (".npy", ".npz"):
            raise InputError(f"{name}: {path} holds pickled objects or is damaged; expected arrays of numbers") from None
        raise InputError(f"{name} must be a .npz or .npy file, but {path} cannot be read as one ({_reason(error)})") from None


def _pick(arrays: Mapping[str, Any], name: str) -> Any:
    if name in arrays:
        return arrays[name]
    if len(arrays) == 1 and not set(arrays) & set(SPLITS):
        return next(iter(arrays.values()))
    raise InputError(f"{name}: the .npz file must hold one array, or one named {name!r}, got {sorted(arrays)}")


def _unpack(packed: Any, size: int, name: str) -> np.ndarray:
    packed = packed.detach().cpu().numpy() if isinstance(packed, Tensor) else np.asarray(packed)
    width = ceil(size / 8)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise InputError(f"{name} must be bit-packed, uint8 [N, {width}], got {packed.dtype} {list(packed.shape)}")
    bits = np.unpackbits(packed, axis=1)
    if bits[:, size:].any():
        raise InputError(f"{name} must be packed from {size} pixels, but bits beyond those are set")
    return bits[:, :size]


def _holds_packed_mnist(path: Path) -> bool:
    arrays = _arrays(path, "data")
    # 0 and 1 alone would be ordinary data of 98 pixels.
    return set(SPLITS) <= set(arrays) and all(
        arrays[name].dtype == np.uint8 and arrays[name].shape[1:] == (98,) and (arrays[name] > 1).any() for name in SPLITS
    )


def _read_amat(path: Path) -> np.ndarray:
    """Text, one image a line, zeros and ones separated by blanks: uint8 [N, D]."""
    _check_file(path, "path")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        row = np.frombuffer(b"".join(line.split()), np.uint8) - ord("0")
        if len(row) == 0:
            continue
        if len(row) != 784 or len(line.split()) != 784 or row.max() > 1:
            raise InputError(
                f"path: line {number} of {path} must be 784 zeros and ones, got {len(line.split())} values: {line[:20]!r}..."
            )
        rows.append(row)
    if not rows:
        raise InputError(f"path: {path} must hold one image a line, got no lines")
    return np.stack(rows)
