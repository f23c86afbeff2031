"""Sparse matrices of counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvae.data.arrays import Splits, arrays_in, check_file
from dvae.data.module import DataModule
from dvae.data.stores import Store
from dvae.errors import InputError, reason_of

__all__ = ["SparseCounts", "SparseStore", "holds_sparse_matrix"]


class SparseStore(Store):
    """The rows of a sparse matrix, made dense as they are asked for.

    Arguments:
        matrix: a scipy matrix or array, [N, D].
    """

    in_memory = True

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self.shape = (int(matrix.shape[1]),)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.from_numpy(np.asarray(self.matrix[places.cpu().numpy()].todense()))


class SparseCounts(DataModule):
    """Counts that are mostly 0, such as words of documents or molecules of cells, from sparse matrices [N, D].

    Likelihoods for counts are :class:`dvae.likelihoods.Multinomial`, :class:`dvae.likelihoods.NegativeBinomial` and
    :class:`dvae.likelihoods.Poisson`. Needs scipy.

    Arguments:
        train: a ``.npz`` file that ``scipy.sparse.save_npz`` wrote, or a scipy matrix.
        valid, test: likewise.
        labels: a ``.npy`` file of whole numbers [N] of the training set, or these.
        valid_fraction, test_fraction, batch_size, eval_batch_size, drop_last, seed, data_seed: see :class:`DataModule`.

    Raises:
        InputError: scipy is not installed, a file cannot be read, or holds no finite numbers.
    """

    are_images = False

    def __init__(
        self,
        train: Any,
        valid: Any = None,
        test: Any = None,
        *,
        labels: Any = None,
        valid_fraction: float | None = None,
        test_fraction: float | None = None,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        )
        self._sources = {"train": train, "valid": valid, "test": test}
        self._labels = labels

    def read(self) -> Splits:
        parts: dict[str, Any] = {name: _store(own, name) for name, own in self._sources.items() if own is not None}
        labels = {} if self._labels is None else {"train": _labels(self._labels)}
        return Splits(**parts, labels=labels)


def holds_sparse_matrix(path: Path) -> bool:
    """Whether a ``.npz`` file holds what ``scipy.sparse.save_npz`` writes."""
    return {"data", "shape", "format"} <= set(arrays_in(path))


def _store(source: Any, name: str) -> SparseStore:
    try:
        from scipy import sparse
    except ImportError:
        raise InputError("SparseCounts needs scipy, which is not installed: pip install discrete-vae[counts]") from None
    if isinstance(source, (str, Path)):
        check_file(Path(source), name)
        try:
            source = sparse.load_npz(source)
        except Exception as error:  # scipy raises whatever the damaged bytes lead to
            raise InputError(f"{name} must be a file of scipy.sparse.save_npz, but {source} is none ({reason_of(error)})") from None
    if not sparse.issparse(source) or source.ndim != 2 or 0 in source.shape or source.dtype.kind not in "biuf":
        raise InputError(f"{name} must be a sparse matrix of numbers [N, D], got {type(source).__name__}")
    if not np.isfinite(source.tocsr().data).all():
        raise InputError(f"{name} must have finite values, got others among them")
    return SparseStore(source)


def _labels(source: Any) -> Any:
    if not isinstance(source, (str, Path)):
        return source
    check_file(Path(source), "labels")
    return np.load(source, allow_pickle=False)
