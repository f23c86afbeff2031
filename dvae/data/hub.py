"""Data sets of Hugging Face's ``datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvae.data.arrays import Splits
from dvae.data.module import DataModule
from dvae.data.stores import Store
from dvae.errors import InputError, reason_of

__all__ = ["HuggingFaceData", "HuggingFaceStore"]

_NAMES = {"train": ("train",), "valid": ("validation", "valid", "val"), "test": ("test",)}


class HuggingFaceStore(Store):
    """A column of a ``datasets.Dataset``: images as bytes, or numbers; read as they are asked for.

    Arguments:
        dataset: with ``dataset[[0, 1]]``.
        column: its name.
    """

    def __init__(self, dataset: Any, column: str) -> None:
        self.dataset, self.column = dataset, column
        self.shape = tuple(self._arrays([0])[0].shape)

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        arrays = self._arrays(places.tolist())
        if len({array.shape for array in arrays}) > 1:
            raise InputError(f"column {self.column} must hold examples of one size, got {sorted({a.shape for a in arrays})[:3]}")
        return torch.from_numpy(np.stack(arrays)).flatten(1)

    def _arrays(self, places: list[int]) -> list[np.ndarray]:
        return [_array(value, self.column) for value in self.dataset[places][self.column]]


class HuggingFaceData(DataModule):
    """A data set of Hugging Face's ``datasets``, an object of theirs or one on the disk. Needs datasets.

    Arguments:
        dataset: a ``Dataset`` or ``DatasetDict``, or a folder that their ``save_to_disk`` wrote.
        column: name of the column that is x: images, or numbers of one size.
        label: name of a column of whole numbers.
        valid_fraction, test_fraction, batch_size, eval_batch_size, drop_last, seed, data_seed, divide_by,
            workers: see :class:`DataModule`.

    Raises:
        InputError: datasets is not installed, there is no such data set or column, or its examples differ in size.
    """

    def __init__(
        self,
        dataset: Any,
        column: str = "image",
        *,
        label: str | None = None,
        valid_fraction: float | None = None,
        test_fraction: float | None = None,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
        divide_by: float = 1.0,
        workers: int = 2,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
            divide_by=divide_by,
            workers=workers,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        )
        self.dataset = dataset
        self.column = column
        self.label = label

    def read(self) -> Splits:
        dataset = _from_disk(self.dataset) if isinstance(self.dataset, (str, Path)) else self.dataset
        given = dataset if isinstance(dataset, dict) else {"train": dataset}
        parts: dict[str, Any] = {}
        labels: dict[str, Any] = {}
        for name, own_names in _NAMES.items():
            found = next((given[own] for own in own_names if own in given), None)
            if found is None:
                continue
            for column in filter(None, (self.column, self.label)):
                if column not in found.column_names:
                    raise InputError(f"column must be one of {', '.join(found.column_names)}, got {column!r}")
            parts[name] = HuggingFaceStore(found, self.column)
            if self.label is not None:
                labels[name] = np.asarray(found[self.label])
        if "train" not in parts:
            raise InputError(f"dataset must have a split train, got {', '.join(given)}")
        return Splits(**parts, labels=labels)


def _from_disk(folder: str | Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("HuggingFaceData needs datasets, which is not installed: pip install discrete-vae[huggingface]") from None
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever the folder's files lead to
        raise InputError(f"dataset must be a folder that save_to_disk wrote, got {folder} ({reason_of(error)})") from None


def _array(value: Any, column: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"column {column} must hold images or numbers, got {type(value).__name__}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array
