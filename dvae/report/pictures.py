"""Samples and reconstructions as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.models import VAE

__all__ = ["image_shape_of", "reconstruction_grid", "sample_grid", "save_picture"]


def image_shape_of(num_pixels: int) -> tuple[int, int, int]:
    """(1, s, s) for a square number of pixels, else one row."""
    side = round(num_pixels**0.5)
    return (1, side, side) if side * side == num_pixels else (1, 1, num_pixels)


@torch.no_grad()
def sample_grid(
    model: VAE,
    num_images: int = 64,
    image_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pixel probabilities of samples from the prior, as one picture [C, H, W] in [0, 1]."""
    pixels = model.sample(num_images, generator)
    return _grid(pixels, image_shape)


@torch.no_grad()
def reconstruction_grid(
    model: VAE,
    x: Tensor,
    image_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Inputs [B, num_pixels] in the odd rows and their reconstructions below them, as one picture [C, H, W] in [0, 1]."""
    reconstructed = model.reconstruct(x, generator)
    rows = []
    for start in range(0, x.shape[0], _COLUMNS):
        rows += [x[start : start + _COLUMNS], reconstructed[start : start + _COLUMNS]]
    return _grid(torch.cat(rows), image_shape)


def save_picture(picture: Tensor, path: str | Path) -> Path:
    """Write a picture [C, H, W] in [0, 1] as PNG; an InputError says when the folder cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"pictures are written as .png, got {path}")
    with written_whole(path) as temporary:
        save_image(picture, temporary)
    return path


_COLUMNS = 8


def _grid(pixels: Tensor, image_shape: Sequence[int] | None) -> Tensor:
    shape = tuple(image_shape or image_shape_of(pixels.shape[-1]))
    images = pixels.float().cpu().reshape(-1, *shape)
    # Twice the size: 28 pixels are too few to look at.
    images = torch.nn.functional.interpolate(images, scale_factor=2, mode="nearest")
    return make_grid(images, nrow=_COLUMNS, padding=4, pad_value=0.5)
