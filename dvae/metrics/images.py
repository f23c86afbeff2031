"""How alike images are: one to one, and as sets."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dvae.config import import_object
from dvae.errors import InputError

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

__all__ = ["frechet_distance", "psnr", "ssim"]


def psnr(images: Tensor, others: Tensor, data_range: float) -> Tensor:
    """The peak signal-to-noise ratio of each image in decibels, [B].

    Arguments:
        images, others: [B, ...] of one shape.
        data_range: the largest value less the smallest that there may be.
    """
    error = (images - others).double().square().flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error.clamp(min=1e-10 * data_range**2))


def ssim(images: Tensor, others: Tensor, data_range: float) -> Tensor:
    """The structural similarity of each image, at most 1, [B] (Wang, Bovik, Sheikh & Simoncelli 2004; windows of 11 pixels).

    Arguments:
        images, others: [B, C, H, W], H and W at least 11.
        data_range: the largest value less the smallest that there may be.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(images, others, data_range=data_range, reduction="none")  # type: ignore[return-value]


def frechet_distance(features: nn.Module | str, image_shape: Sequence[int]) -> FrechetInceptionDistance:
    """torchmetrics' metric of the Fréchet distance of two sets of images in a network's features (Heusel et al. 2017).

    ``update(images, real=True)`` and ``update(images, real=False)`` take [B, C, H, W] in [0, 1].

    Arguments:
        features: a network from such images to [B, F], or the import path of one, or of a class or function that makes one without
            arguments. It is used in evaluation mode.
        image_shape: (C, H, W).

    Raises:
        InputError: there is no such network, or it does not take these images to [B, F].
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    network = (_imported(features) if isinstance(features, str) else features).eval()
    shape = tuple(image_shape)
    try:
        with torch.no_grad():
            given = tuple(network(torch.zeros(2, *shape)).shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"features must take images [B, {shape}] to [B, F]; it raised: {str(error).splitlines()[0]}") from None
    if len(given) != 2 or given[0] != 2:
        raise InputError(f"features must take images [B, C, H, W] to [B, F], but took {(2, *shape)} to {given}")
    return FrechetInceptionDistance(network, reset_real_features=False, normalize=True, input_img_size=shape)  # type: ignore[arg-type]


def _imported(path: str) -> nn.Module:
    found = import_object(path, "features")
    if isinstance(found, type) or inspect.isfunction(found):
        found = found()
    if not isinstance(found, nn.Module):
        raise InputError(f"features must be an nn.Module or what makes one, got {type(found).__name__} at {path}")
    return found
