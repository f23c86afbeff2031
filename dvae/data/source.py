"""From what a user calls data to a data module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from dvae.config import check_yaml_text, class_paths, instantiate, public_path, require_trust
from dvae.data.array_data import ArrayData
from dvae.data.arrays import SPLITS, check_file
from dvae.data.batches import Examples, StreamedExamples, loader_of
from dvae.data.hub import HuggingFaceData
from dvae.data.images import ImageFolder
from dvae.data.mnist import BinarizedMNIST, holds_packed_mnist
from dvae.data.module import DataModule
from dvae.data.omniglot import Omniglot
from dvae.data.sparse import SparseCounts, holds_sparse_matrix
from dvae.data.tables import Table
from dvae.errors import InputError

__all__ = ["data_module", "described", "examples_of", "is_loader", "load_split"]


def data_module(source: Any = None, *, trust: bool = False) -> pl.LightningDataModule:
    """The data module that ``source`` means.

    Arguments:
        source: a data module, which is returned; a config of one (``module.config``); the import path of a class of data modules,
            or its config as YAML; an array or a tensor, the training set; or what :func:`described` takes.
        trust: import a class from outside ``dvae`` that a config names.

    Raises:
        InputError: it is none of these, or the data cannot be read.
    """
    if isinstance(source, pl.LightningDataModule):
        return source
    if isinstance(source, Mapping):
        require_trust("data: its config", class_paths(source), trust)
        return instantiate(source, pl.LightningDataModule, "data")
    if isinstance(source, (np.ndarray, Tensor)):
        return ArrayData(source)
    if not isinstance(source, (str, Path, type(None))):
        raise InputError(f"data must be a data module, its config, an array or a path, got {type(source).__name__}")
    if isinstance(source, str) and source != "bundled" and not Path(source).exists():
        config = _as_config(source)
        if config is not None:
            return data_module(config, trust=trust)
    return instantiate(described(source), pl.LightningDataModule, "data")


def described(source: str | Path | None) -> dict[str, Any]:
    """The config of the data module that reads a file or a folder.

    Arguments:
        source: None or "bundled" for :class:`BinarizedMNIST`; a folder of images, of ``.amat`` files, or that ``save_to_disk`` of
            Hugging Face's datasets wrote; a ``.npz`` file of arrays, of one sparse matrix or of bit-packed MNIST; a ``.npy``,
            ``.csv``, ``.parquet`` or ``.mat`` file.

    Raises:
        InputError: there is no such file or folder.
    """
    if source is None or source == "bundled":
        return _config(BinarizedMNIST)
    path = Path(source)
    if path.is_dir():
        if any(path.glob("*.amat")):
            return _config(BinarizedMNIST, path=str(path))
        if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
            return _config(HuggingFaceData, dataset=str(path))
        return _config(ImageFolder, path=str(path))
    check_file(path, "data")
    if path.suffix == ".mat":
        return _config(Omniglot, path=str(path))
    if path.suffix in (".csv", ".parquet", ".pq"):
        return _config(Table, train=str(path))
    if path.suffix == ".npz" and holds_sparse_matrix(path):
        return _config(SparseCounts, train=str(path))
    if path.suffix == ".npz" and holds_packed_mnist(path):
        return _config(BinarizedMNIST, path=str(path))
    return _config(ArrayData, train=str(path))


def _config(cls: type, **arguments: Any) -> dict[str, Any]:
    return {"class_path": public_path(cls), "init_args": arguments}


def _as_config(text: str) -> dict[str, Any] | None:
    """The config that a text is: YAML, or the import path of a class; None where it is a path."""
    if "{" in text:
        content = check_yaml_text(text, "data")
        return content if isinstance(content, dict) else None
    named = all(part.isidentifier() for part in text.split(".")) and text.split(".")[-1][:1].isupper()
    return {"class_path": text, "init_args": {}} if named and "." in text else None


def is_loader(data: Any) -> bool:
    """Whether data are a DataLoader, or another iterable of batches."""
    return hasattr(data, "__iter__") and not isinstance(data, (str, Path, Mapping, np.ndarray, Tensor))


def examples_of(data: Any, split: str = "test", *, input_key: int | str | None = None, trust: bool = False) -> Examples:
    """One split of any data as an evaluation goes through it.

    Arguments:
        data: a DataLoader or another iterable of batches, which is the split; any LightningDataModule; or what
            :func:`data_module` takes.
        split: "train", "valid" or "test".
        input_key: which part of a loader's batches is x, see :func:`x_of`.
        trust: see :func:`data_module`.

    Raises:
        InputError: the data cannot be read, or have no such split.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(data, Examples):
        return data
    if is_loader(data):
        return StreamedExamples(data, input_key)
    module = data_module(data, trust=trust)
    return module.examples(split) if isinstance(module, DataModule) else StreamedExamples(loader_of(module, split), input_key)


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
