"""The data module of arrays and of files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvae.data.arrays import Source, Splits, arrays_of, check_count, check_file, pick, unpacked
from dvae.data.module import DataModule
from dvae.data.stores import FileStore
from dvae.errors import InputError

__all__ = ["ArrayData"]


class ArrayData(DataModule):
    """Data of one's own: arrays, tensors or files.

    Example:
        >>> data = dvae.data.ArrayData(torch.eye(16), valid_fraction=0.25)
        >>> data.split("valid").shape, data.image_shape
        (torch.Size([4, 16]), (1, 4, 4))

    Arguments:
        train: array or tensor of numbers [N, ...], or a path. A ``.npy`` file holds one array; a ``.npz`` file holds one array, or
            several of which those named train, valid and test are taken, and train_labels, valid_labels and test_labels with them.
        valid: likewise; by default the ``.npz`` file's, if any.
        test: likewise.
        labels: whole numbers [N] of the training set, or a mapping from train, valid and test to those of each; by default the
            ``.npz`` file's, if any. They are not trained on, and go with the codes.
        in_memory: whether files are read at once. Otherwise, for sets larger than memory, every batch is read as it is needed, from
            ``.npy`` or from ``.npz`` that is not compressed.
        packed_size: number of pixels D where the arrays are packed bits, uint8 [N, ceil(D / 8)], as
            ``numpy.packbits(..., axis=1)`` makes them.
        batch_size, eval_batch_size, dynamic, drop_last, seed, data_seed, image_shape, divide_by, workers, valid_fraction,
            test_fraction: see :class:`DataModule`.

    Raises:
        InputError: a file cannot be read, values are not finite, shapes do not fit, or an argument is out of its range.
    """

    def __init__(
        self,
        train: Source,
        valid: Source | None = None,
        test: Source | None = None,
        *,
        labels: Any = None,
        in_memory: bool = True,
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
            divide_by=divide_by,
            workers=workers,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        )
        if packed_size is not None:
            check_count("packed_size", packed_size)
            if not in_memory:
                raise InputError("packed_size must be None where in_memory is False: packed bits are unpacked at once")
        self.packed_size = packed_size
        self._in_memory = in_memory
        self._sources = {"train": train, "valid": valid, "test": test}
        self._labels = labels
        self.setup()

    def read(self) -> Splits:
        parts, labels = self._stores() if not self._in_memory else self._arrays()
        if self._labels is not None:
            labels = dict(self._labels) if isinstance(self._labels, Mapping) else {"train": self._labels}
            if unknown := set(labels) - set(parts):
                raise InputError(f"labels must be of splits that there are, {', '.join(parts)}, got {', '.join(sorted(unknown))}")
        return Splits(**parts, labels=labels)

    def _arrays(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The splits' arrays, and the labels that their files hold."""
        files = {"train": arrays_of(self._sources["train"], "train")}
        for name in ("valid", "test"):
            if (source := self._sources[name]) is not None:
                files[name] = arrays_of(source, name)
            elif name in files["train"]:
                files[name] = files["train"]
        parts, labels = {}, {}
        for name, arrays in files.items():
            key = next((key for key in (f"{name}_labels", "labels") if key in arrays and len(arrays) > 1), None)
            parts[name] = pick({other: array for other, array in arrays.items() if not other.endswith("labels")}, name)
            if key is not None and (key != "labels" or name == "train" or arrays is not files["train"]):
                labels[name] = arrays[key]
            if self.packed_size is not None:
                parts[name] = unpacked(parts[name], self.packed_size, name)
        return parts, labels

    def _stores(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The splits as files that are read as they are needed."""
        parts, labels = {}, {}
        for name, source in self._sources.items():
            path = self._sources["train"] if source is None else source
            if not isinstance(path, (str, Path)):
                raise InputError(f"{name} must be a file where in_memory is False, got {type(path).__name__}")
            check_file(Path(path), name)
            if Path(path).suffix != ".npz":
                if source is not None:
                    parts[name] = FileStore(path)
                continue
            with np.load(path, allow_pickle=False) as archive:
                members = archive.files
                if f"{name}_labels" in members:
                    labels[name] = archive[f"{name}_labels"]
            only = [member for member in members if not member.endswith("labels")]
            if name in members or (source is not None and len(only) == 1):
                parts[name] = FileStore(path, name if name in members else only[0])
            elif source is not None:
                raise InputError(f"{name}: the .npz file must hold one array, or one named {name!r}, got {sorted(members)}")
        return parts, labels
