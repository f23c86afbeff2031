"""MNIST, binarized once or in grey levels, and Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from dvae.data.arrays import SPLITS, Splits, arrays_in, arrays_of, check_file, unpacked
from dvae.data.module import DataModule
from dvae.errors import InputError, reason_of
from dvae.resources import bundled_folder

__all__ = ["MNIST", "BinarizedMNIST", "FashionMNIST"]


class BinarizedMNIST(DataModule):
    """MNIST binarized once: 50,000 / 10,000 / 10,000 images of 28 x 28 pixels that are 0 or 1.

    The bundled draw is the project's own. The field's (Salakhutdinov & Murray, On the quantitative analysis of deep belief
    networks, 2008), which the published numbers are about, is another one: give its ``path`` to compare with those.

    Arguments:
        batch_size, seed, eval_batch_size, drop_last: see :class:`DataModule`.
        path: another binarization: a ``.npz`` file with arrays train, valid and test, bit-packed uint8 [N, 98] or plain [N, 784],
            or a folder with the public text files ``binarized_mnist_{train,valid,test}.amat``. By default the bundled one, which
            has the digits as labels.

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
            arrays = arrays_of(path, "path")
        if missing := [name for name in SPLITS if name not in arrays]:
            raise InputError(f"path must hold train, valid and test, but {path} lacks {', '.join(missing)}")
        labels = {name: arrays[f"{name}_labels"] for name in SPLITS if f"{name}_labels" in arrays}
        train, valid, test = (self._images(arrays[name], f"{name} in {path}") for name in SPLITS)
        return Splits(train, valid, test, labels)

    @staticmethod
    def _images(array: np.ndarray, name: str) -> np.ndarray:
        pixels = (
            unpacked(array, 784, name) if array.dtype == np.uint8 and array.shape[1:] == (98,) else array.reshape(len(array), -1)
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
        (images, labels), (test, test_labels) = self._images(train=True), self._images(train=False)
        first = len(images) - len(images) // 6
        classes = {"train": labels[:first], "valid": labels[first:], "test": test_labels}
        parts = Splits(images[:first], images[first:], test, classes)
        return parts if self.dynamic else self._binarized(parts)

    def _images(self, train: bool) -> tuple[Tensor, Tensor]:
        """Grey levels in [0, 1], and classes."""
        from torchvision import datasets

        try:
            found = getattr(datasets, self.dataset)(self.root, train=train, download=self.download)
        except Exception as error:  # torchvision raises whatever the damaged bytes or the network lead to
            hint = "could not be fetched" if self.download else "download=True fetches them"
            raise InputError(
                f"root must hold the four unpacked IDX files of {self.dataset} in {self.root / self.dataset / 'raw'}; {hint} "
                f"({reason_of(error)})"
            ) from None
        return found.data.float().div_(255), found.targets


class FashionMNIST(MNIST):
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 28 x 28 pictures of clothes; otherwise as :class:`MNIST`."""

    dataset = "FashionMNIST"


def holds_packed_mnist(path: Path) -> bool:
    """Whether a file holds three splits of 28 x 28 bits in 98 bytes an example."""
    if not set(SPLITS) <= set(arrays_in(path)):
        return False
    arrays = arrays_of(path, "data")
    # 0 and 1 alone would be ordinary data of 98 pixels.
    return all(arrays[name].dtype == np.uint8 and arrays[name].shape[1:] == (98,) and (arrays[name] > 1).any() for name in SPLITS)


def _read_amat(path: Path) -> np.ndarray:
    """Text, one image a line, zeros and ones separated by blanks: uint8 [N, D]."""
    check_file(path, "path")
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
