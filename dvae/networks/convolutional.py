"""Convolutional maps between flat images and logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks.dense import dense

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(Module):
    """A convolutional encoder, flat images [*, C H W] to logits [*, out_features].

    Arguments:
        out_features: number of latents.
        image_shape: (C, H, W); H and W divisible by 4.
        channels: width of the first convolution; the second has twice as many.

    Raises:
        InputError: H or W is not divisible by 4.

    Example:
        >>> dvae.networks.ConvEncoder(out_features=20, image_shape=(1, 8, 8), channels=4)(torch.zeros(5, 64)).shape
        torch.Size([5, 20])
    """

    def __init__(self, out_features: int = 200, image_shape: Sequence[int] = (1, 28, 28), channels: int = 32) -> None:
        super().__init__()
        self.image_shape = _check_image_shape(image_shape)
        depth, height, width = self.image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(depth, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            dense(2 * channels * (height // 4) * (width // 4), out_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(-1, *self.image_shape)).reshape(*x.shape[:-1], -1)


class ConvDecoder(Module):
    """A convolutional decoder, latents [*, in_features] to pixel logits [*, C H W].

    Arguments:
        in_features: number of latents.
        image_shape: (C, H, W); H and W divisible by 4.
        channels: width of the last hidden layer; the one before has twice as many.

    Raises:
        InputError: H or W is not divisible by 4.

    Example:
        >>> dvae.networks.ConvDecoder(in_features=20, image_shape=(1, 8, 8), channels=4)(torch.zeros(5, 20)).shape
        torch.Size([5, 64])
    """

    def __init__(self, in_features: int = 200, image_shape: Sequence[int] = (1, 28, 28), channels: int = 32) -> None:
        super().__init__()
        depth, height, width = _check_image_shape(image_shape)
        self.layers = nn.Sequential(
            dense(in_features, 2 * channels * (height // 4) * (width // 4)),
            nn.ReLU(),
            nn.Unflatten(-1, (2 * channels, height // 4, width // 4)),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, depth, 4, stride=2, padding=1),
            nn.Flatten(),
        )

    def forward(self, b: Tensor) -> Tensor:
        return self.layers(b.reshape(-1, b.shape[-1])).reshape(*b.shape[:-1], -1)


def _check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) != 3 or image_shape[1] % 4 or image_shape[2] % 4:
        raise InputError(f"image_shape must be (channels, height, width), the last two divisible by 4, got {tuple(image_shape)}")
    return (image_shape[0], image_shape[1], image_shape[2])
