"""Samples and reconstructions as pictures, and moving ones."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid, save_image

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.models import VAE, Autoencoder

__all__ = [
    "as_images",
    "brightness",
    "image_grid",
    "image_shape_of",
    "png_of",
    "reconstruction_grid",
    "sample_grid",
    "save_gif",
    "save_picture",
]

_GIF_COLOURS = 64


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
    """The mean of x given samples from the prior, as one picture [C, H, W] in [0, 1]."""
    pixels = model.sample(num_images, generator)
    return image_grid(model, pixels, image_shape)


@torch.no_grad()
def reconstruction_grid(
    model: Autoencoder,
    x: Tensor,
    image_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Inputs [B, num_pixels] in the odd rows and their reconstructions below them, as one picture [C, H, W] in [0, 1]."""
    reconstructed = model.reconstruct(x, generator)
    rows = []
    for start in range(0, x.shape[0], _COLUMNS):
        rows += [x[start : start + _COLUMNS], reconstructed[start : start + _COLUMNS]]
    return image_grid(model, torch.cat(rows), image_shape)


def png_of(picture: Tensor) -> bytes:
    """A picture [C, H, W] in [0, 1] as the content of a PNG file."""
    content = io.BytesIO()
    save_image(picture, content, format="png")
    return content.getvalue()


def save_picture(picture: Tensor, path: str | Path) -> Path:
    """Write a picture [C, H, W] in [0, 1] as PNG; an InputError says when the folder cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"pictures are written as .png, got {path}")
    with written_whole(path) as temporary:
        save_image(picture, temporary)
    return path


_COLUMNS = 8


def as_images(model: Autoencoder, pixels: Tensor, image_shape: Sequence[int] | None = None) -> Tensor:
    """Values of x [N, num_pixels] as images in [0, 1], [N, 1 or 3, H, W]; channels that are no colours side by side, in grey.

    Arguments:
        model: whose values they are.
        pixels: the values.
        image_shape: (C, H, W); what has another number of values is a square or a row.
    """
    fits = image_shape is not None and math.prod(image_shape) == pixels.shape[-1]
    shape = tuple(image_shape) if image_shape is not None and fits else image_shape_of(pixels.shape[-1])
    images = brightness(model, pixels.float().cpu()).reshape(-1, *shape)
    if shape[0] not in (1, 3):
        images = images.permute(0, 2, 1, 3).reshape(len(images), 1, shape[1], shape[0] * shape[2])
    return images


def image_grid(model: Autoencoder, pixels: Tensor, image_shape: Sequence[int] | None = None, columns: int = 8) -> Tensor:
    """Values of x [N, num_pixels] as one picture [C, H, W] in [0, 1], ``columns`` images in a row."""
    images = as_images(model, pixels, image_shape)
    # Twice the size of small ones: 28 pixels are too few to look at.
    if max(images.shape[-2:]) < 64:
        images = torch.nn.functional.interpolate(images, scale_factor=2, mode="nearest")
    return make_grid(images, nrow=columns, padding=4, pad_value=0.5)


def brightness(model: Autoencoder, pixels: Tensor) -> Tensor:
    """Values of x in [0, 1]: by the likelihood's range, or by the picture's own where that has no end."""
    low, high = model.likelihood.low, model.likelihood.high
    low = pixels.min().item() if math.isinf(low) else low
    high = pixels.max().item() if math.isinf(high) else high
    return ((pixels - low) / max(high - low, 1e-12)).clamp(0, 1)


def save_gif(frames: Sequence[np.ndarray], frames_per_second: float, path: str | Path) -> Path:
    """Write frames [H, W, 3] in uint8 as a GIF file that repeats.

    Raises:
        InputError: the file is no .gif, or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".gif":
        raise InputError(f"a moving picture must be a .gif file, got {path}")
    pictures = [Image.fromarray(frame).quantize(_GIF_COLOURS) for frame in frames]
    with written_whole(path) as temporary:
        duration = max(20, round(1000 / frames_per_second))  # viewers slow down what is faster
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return path
