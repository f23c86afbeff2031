"""Omniglot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dvae.data.arrays import Splits, check_file, number_tensor
from dvae.data.module import DataModule
from dvae.errors import InputError, reason_of

__all__ = ["Omniglot"]


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
            raise InputError("Omniglot needs scipy, which is not installed: pip install discrete-vae[omniglot]") from None
        check_file(self.path, "path")
        try:
            content = loadmat(self.path, variable_names=("data", "testdata"))
        except Exception as error:  # scipy raises whatever the damaged bytes lead to
            raise InputError(f"path must be a MATLAB v5 file, but {self.path} cannot be read as one ({reason_of(error)})") from None
        images, test = (self._images(content, key) for key in ("data", "testdata"))
        first = len(images) - max(1, round(len(images) * 1345 / 24345))
        parts = Splits(images[:first], images[first:], test)
        return parts if self.dynamic else self._binarized(parts)

    def _images(self, content: Mapping[str, Any], key: str) -> Tensor:
        array = content.get(key)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[0] != 784:
            given = list(array.shape) if isinstance(array, np.ndarray) else "nothing"
            raise InputError(f"path: {key} in {self.path} must be [784, N], got {given}")
        return number_tensor(array.T.reshape(-1, 28, 28).swapaxes(1, 2), f"{key} in {self.path}")
