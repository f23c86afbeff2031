"""Folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvae.data.arrays import SPLITS, Splits, check_count
from dvae.data.module import DataModule
from dvae.data.stores import Store
from dvae.errors import InputError, reason_of

__all__ = ["ImageFolder", "ImageStore"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Names that folders of splits have.
_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
# Before a random crop, the shorter side is this much longer than the crop.
_MARGIN = 1.15


class ImageStore(Store):
    """Image files as bytes 0, ..., 255: decoded when they are asked for, resized, cut to a square, and flipped at random.

    Arguments:
        files: paths.
        size: side of the square, pixels.
        channels: 3 for colours, 1 for grey.
        random_crop: in training, cut at a random place out of a somewhat larger image; else out of the middle.
        flip: in training, mirror every other image, left to right.
        in_memory: decode all of them at once, in threads.
    """

    def __init__(
        self,
        files: Sequence[Path],
        size: int,
        channels: int = 3,
        *,
        random_crop: bool = False,
        flip: bool = False,
        in_memory: bool = False,
    ) -> None:
        self.files = list(files)
        self.size, self.flip = size, flip
        self.side = round(_MARGIN * size) if random_crop else size
        self.shape = (channels, size, size)
        self.random = flip or random_crop
        self.in_memory = in_memory
        self._decoded: Tensor | None = None
        if in_memory:
            with ThreadPoolExecutor() as pool:
                self._decoded = torch.stack(list(pool.map(self._load, self.files)))

    def __len__(self) -> int:
        return len(self.files)

    def take(self, places: Tensor, generator: torch.Generator | None = None) -> Tensor:
        images = self._decoded[places] if self._decoded is not None else torch.stack([self._load(self.files[i]) for i in places])
        margin = self.side - self.size
        if generator is None:
            start = margin // 2
            return images[..., start : start + self.size, start : start + self.size].flatten(1)
        corners = torch.randint(margin + 1, (len(images), 2), generator=generator).tolist()
        cut = torch.stack([image[:, y : y + self.size, x : x + self.size] for image, (y, x) in zip(images, corners, strict=True)])
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            cut = torch.where(mirrored[:, None, None, None], cut.flip(-1), cut)
        return cut.flatten(1)

    def _load(self, path: Path) -> Tensor:
        """[channels, side, side], uint8."""
        from PIL import Image, ImageOps  # comes with torchvision

        try:
            with Image.open(path) as image:
                converted = image.convert("RGB" if self.shape[0] == 3 else "L")
        except Exception as error:  # Pillow raises whatever the damaged bytes lead to
            raise InputError(f"path: {path} cannot be read as an image ({reason_of(error)})") from None
        square = ImageOps.fit(converted, (self.side, self.side), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(square)).reshape(self.side, self.side, self.shape[0])
        return pixels.permute(2, 0, 1)


class ImageFolder(DataModule):
    """Images in folders, as bytes 0, ..., 255 of [channels, size, size]; a folder for each class gives labels.

    ``PATH/train``, ``PATH/valid`` (or ``val``) and ``PATH/test`` are the splits, where they exist; else all of ``PATH`` is the
    training set, of which shares can be held out. The likelihood for bytes is :class:`dvae.likelihoods.DiscretizedLogistic`;
    ``divide_by=255`` makes grey levels in [0, 1].

    Arguments:
        path: the folder.
        size: side of the square that every image is resized and cut to, pixels.
        channels: 3 for colours, 1 for grey.
        random_crop: cut training images at a random place; else, and in evaluations, out of the middle.
        flip: mirror every other training image, left to right.
        in_memory: decode all images at once and keep them; else they are decoded as they are needed.
        valid_fraction, test_fraction, batch_size, eval_batch_size, dynamic, drop_last, seed, data_seed, divide_by,
            workers: see :class:`DataModule`.

    Raises:
        InputError: there are no images, one cannot be read, or an argument is out of its range.
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 32,
        *,
        channels: int = 3,
        random_crop: bool = False,
        flip: bool = False,
        in_memory: bool = False,
        valid_fraction: float | None = None,
        test_fraction: float | None = None,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        dynamic: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
        divide_by: float = 1.0,
        workers: int = 2,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            dynamic=dynamic,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
            divide_by=divide_by,
            workers=0 if in_memory else workers,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        )
        check_count("size", size)
        if channels not in (1, 3):
            raise InputError(f"channels must be 1 or 3, got {channels}")
        self.path = Path(path)
        self.size = size
        self.channels = channels
        self._options = {"random_crop": random_crop, "flip": flip, "in_memory": in_memory}

    def read(self) -> Splits:
        if not self.path.is_dir():
            raise InputError(f"path must be a folder of images, got {self.path}, which is none")
        parts: dict[str, Any] = {}
        labels: dict[str, Any] = {}
        for name in SPLITS:
            folder = next((self.path / own for own in _FOLDERS[name] if (self.path / own).is_dir()), None)
            if folder is None and name == "train":
                folder = self.path
            if folder is not None:
                files, classes = _images_in(folder)
                parts[name] = ImageStore(files, self.size, self.channels, **self._options)
                labels |= {} if classes is None else {name: classes}
        return Splits(**parts, labels=labels)


def _images_in(folder: Path) -> tuple[list[Path], Tensor | None]:
    """The image files of a folder, and their classes where these are folders in it."""
    from torchvision import datasets

    try:
        found = datasets.ImageFolder(str(folder), allow_empty=True).samples
    except FileNotFoundError:  # no folder in it
        found = []
    if found:
        return [Path(path) for path, _ in found], torch.tensor([number for _, number in found])
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise InputError(
            f"path must hold images ({', '.join(_SUFFIXES)}), or a folder of them for each class, but {folder} has none"
        )
    return files, None
