"""Where examples are: in memory, or in files from which they are read when they are asked for."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError

__all__ = ["FileStore", "Store", "Subset", "TensorStore"]


class Store:
    """Examples by their places. A subclass says :attr:`shape` and length, and writes :meth:`take`.

    What it reads depends on the places alone (and on the generator's state), so that a run that goes on sees what it would have
    seen; several threads may ask at once.
    """

    shape: tuple[int, ...]
    """Of one example: (channels, height, width) of an image."""
    in_memory = False
    """Whether all of it is in memory, and may be gone through at no cost."""
    random = False
    """Whether :meth:`take` changes the examples at random (crops, flips) where it is given a generator."""
    device = torch.device("cpu")
    """Where what it gives is."""

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The examples at these places [n], flat: [n, D], of any type of numbers.

        Arguments:
            places: from 0 to the length less 1.
            generator: of random changes, in training; without one there are none.
        """
        raise NotImplementedError(f"{type(self).__name__} must define take(places, generator)")

    def to(self, device: torch.device) -> Store:
        """The same, on a device, where it is in memory; what is read from files stays on the CPU."""
        return self


class TensorStore(Store):
    """A tensor.

    Arguments:
        data: [N, D].
        shape: of one example; (D,) by default.
    """

    in_memory = True

    def __init__(self, data: Tensor, shape: Sequence[int] | None = None) -> None:
        self.data = data
        self.shape = tuple(data.shape[1:]) if shape is None else tuple(shape)
        self.device = data.device

    def __len__(self) -> int:
        return len(self.data)

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # Indexing would copy element by element, not row by row.
        return self.data.index_select(0, places.to(self.device))

    def to(self, device: torch.device) -> Store:
        return TensorStore(self.data.to(device), self.shape)


class FileStore(Store):
    """An array in a ``.npy`` file, or in a ``.npz`` file that is not compressed, read row by row.

    It is read, not mapped: the pages of a map that was gone through stay in memory.

    Arguments:
        path: the file.
        name: of the array in a ``.npz`` file.

    Raises:
        InputError: the file is neither, is compressed, or its array has no numbers, no examples or another order than C's.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.path = Path(path)
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        try:
            with self.path.open("rb") as file:
                if name is not None:
                    file.seek(_start_of_member(self.path, file, f"{name}.npy"))
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, self.dtype = read(file)
                self._start = file.tell()
                size = self.path.stat().st_size
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.path} cannot be read as an array in a file: {' '.join(str(error).split())[:120]}") from None
        if self.dtype.kind not in "biuf" or fortran or len(shape) < 2 or 0 in shape:
            order = " in Fortran order" if fortran else ""
            raise InputError(
                f"{self.path} must hold numbers [N, ...] in C order to be read row by row, got {self.dtype} {list(shape)}{order}"
            )
        self._count, self._event = shape[0], tuple(shape[1:])
        self._row = prod(self._event) * self.dtype.itemsize
        if size < self._start + self._count * self._row:
            raise InputError(f"{self.path} is truncated: expected {self._count} examples of {self._row} bytes")
        self.shape = self._event

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        rows = np.empty((len(places), self._row), np.uint8)
        with self._lock:
            if self._file is None:
                self._file = self.path.open("rb", buffering=0)
            for index, place in enumerate(places.tolist()):
                self._file.seek(self._start + place * self._row)
                if self._file.readinto(rows[index]) != self._row:  # type: ignore[attr-defined]
                    raise InputError(f"{self.path} became shorter while it was read")
        values = rows.view(self.dtype).reshape(len(places), -1)
        byte = self.dtype.kind in "bu" and self.dtype.itemsize == 1
        return torch.from_numpy(values.astype(np.float32 if self.dtype.kind == "f" else np.uint8 if byte else np.int64))


class Subset(Store):
    """Some of the examples of a store.

    Arguments:
        store: of all.
        places: of those that there are here, [n].
    """

    def __init__(self, store: Store, places: Tensor) -> None:
        self.store, self.places = store, places
        self.shape, self.in_memory, self.random, self.device = store.shape, store.in_memory, store.random, store.device

    def __len__(self) -> int:
        return len(self.places)

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.store.take(self.places[places.cpu()], generator)

    def to(self, device: torch.device) -> Store:
        return Subset(self.store.to(device), self.places)


class Changed(Store):
    """A store's examples as float32, divided by a number, with channels moved to the front.

    Arguments:
        store: of [n, D].
        divide_by: the number; 1 for none.
        channels_last: whether the store's images are (height, width, channels).
    """

    def __init__(self, store: Store, divide_by: float = 1.0, channels_last: bool = False) -> None:
        self.store, self.divide_by, self.channels_last = store, divide_by, channels_last
        height, width, channels = store.shape if channels_last else (0, 0, 0)
        self.shape = (channels, height, width) if channels_last else store.shape
        self.in_memory, self.random, self.device = store.in_memory, store.random, store.device

    def __len__(self) -> int:
        return len(self.store)

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        values = self.store.take(places, generator)
        if self.channels_last:
            values = values.unflatten(-1, self.store.shape).movedim(-1, 1).flatten(1)
        return values if self.divide_by == 1 else values.float() / self.divide_by

    def to(self, device: torch.device) -> Store:
        return Changed(self.store.to(device), self.divide_by, self.channels_last)


def _start_of_member(path: Path, file: BinaryIO, name: str) -> int:
    """Where a member that is not compressed starts in an archive."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed: save it with numpy.savez or as .npy")
    file.seek(info.header_offset + 26)
    lengths = np.frombuffer(file.read(4), "<u2")
    return info.header_offset + 30 + int(lengths.sum())
