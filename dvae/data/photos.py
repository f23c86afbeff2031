"""Colour photographs that come with scientific Python's wheels."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dvae.data.arrays import SPLITS, Splits, check_count
from dvae.data.module import DataModule
from dvae.errors import InputError
from dvae.noise import mixed_seed

__all__ = ["PhotoPatches"]

# By photograph, so that no patch of the test set is a neighbour of one of the training set.
_PHOTOS = {
    "train": (
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/rocket.jpg"),
        ("skimage", "data/hubble_deep_field.jpg"),
        ("skimage", "data/ihc.png"),
    ),
    "valid": (("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),),
    "test": (("sklearn", "datasets/images/china.jpg"), ("sklearn", "datasets/images/flower.jpg")),
}
_EXTRA = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


class PhotoPatches(DataModule):
    """Square patches of ten colour photographs, as bytes 0, ..., 255: a real data set of colours without a download.

    Seven photographs of scikit-image are for training, one of matplotlib for validation, two of scikit-learn for the test. Each
    gives equally many patches, at places drawn by ``data_seed``, half of them from the photograph at half its size. A patch's label
    is the number of its photograph. The likelihood for bytes is :class:`dvae.likelihoods.DiscretizedLogistic`.

    Arguments:
        size: side of a patch, pixels: 32 or 64, for example.
        patches: how many the training set has; validation and test set have an eighth of it each.
        batch_size, eval_batch_size, drop_last, seed, data_seed, divide_by: see :class:`DataModule`.

    Raises:
        InputError: scikit-image or scikit-learn is not installed (``pip install discrete-vae[photos]``), or ``size`` is larger
            than the photographs.
    """

    def __init__(
        self,
        size: int = 32,
        patches: int = 20_000,
        *,
        batch_size: int = 24,
        eval_batch_size: int = 100,
        drop_last: bool = False,
        seed: int = 0,
        data_seed: int = 0,
        divide_by: float = 1.0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            drop_last=drop_last,
            seed=seed,
            data_seed=data_seed,
            divide_by=divide_by,
        )
        check_count("size", size)
        check_count("patches", patches)
        if not 4 <= size <= 128:
            raise InputError(f"size must be from 4 to 128, got {size}")
        self.size = size
        self.patches = patches

    def read(self) -> Splits:
        parts, labels, number = {}, {}, 0
        for index, name in enumerate(SPLITS):
            photos = [_photo(package, path) for package, path in _PHOTOS[name]]
            total = self.patches if name == "train" else max(1, self.patches // 8)
            generator = torch.Generator().manual_seed(mixed_seed(self.data_seed, index))
            parts[name], which = _patches(photos, total, self.size, generator)
            labels[name] = which + number
            number += len(photos)
        return Splits(**parts, labels=labels)


def _photo(package: str, path: str) -> Tensor:
    """[3, H, W], uint8."""
    from PIL import Image  # comes with torchvision

    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise InputError(f"PhotoPatches needs {_EXTRA[package]}, which is not installed: pip install discrete-vae[photos]")
    with Image.open(Path(found.origin).parent / path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _patches(photos: Sequence[Tensor], total: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Patches [total, 3, size, size] and the number of the photograph of each, in random order."""
    scales = [photo for own in photos for photo in (own, _halved(own))]
    which = torch.randint(len(scales), (total,), generator=generator)
    places = torch.rand(total, 2, generator=generator)
    patches = torch.empty(total, 3, size, size, dtype=torch.uint8)
    for index, (number, (v, u)) in enumerate(zip(which.tolist(), places.tolist(), strict=True)):
        photo = scales[number]
        top, left = int(v * (photo.shape[1] - size + 1)), int(u * (photo.shape[2] - size + 1))
        patches[index] = photo[:, top : top + size, left : left + size]
    return patches, which // 2


def _halved(photo: Tensor) -> Tensor:
    height, width = photo.shape[1] // 2 * 2, photo.shape[2] // 2 * 2
    return torch.nn.functional.avg_pool2d(photo[:, :height, :width].float(), 2).round().to(torch.uint8)
