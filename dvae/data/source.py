"""From what a user calls data to a data module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from dvae.config import class_paths, instantiate
from dvae.data.arrays import check_file
from dvae.data.mnist import BinarizedMNIST, holds_packed_mnist
from dvae.data.module import ArrayData, DataModule
from dvae.data.omniglot import Omniglot
from dvae.errors import InputError

__all__ = ["data_module", "load_split"]


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
    check_file(path, "data")
    if path.suffix == ".mat":
        return Omniglot(path)
    if path.suffix == ".npz" and holds_packed_mnist(path):
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
