"""Encoders and decoders: maps from features to logits. Every latent enters a network as 2b - 1."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "FactorialPrior", "Linear", "dense"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}


class MLP(Module):
    """A multi-layer perceptron, [*, in_features] to [*, out_features], with Glorot-uniform weights and zero biases.

    The defaults are the nonlinear maps of Grathwohl et al. 2018: tanh, tanh, linear.

    Arguments:
        in_features: size of the input.
        out_features: size of the output.
        hidden: width of each hidden layer.
        activation: "tanh", "relu", "leaky_relu", "elu" or "silu".
        output_scale: factor on the last layer's initial weights; 0 starts the map at zero.

    Raises:
        InputError: a size is less than 1, or the activation is unknown.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
        output_scale: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [in_features, *hidden, out_features]
        if any(size < 1 for size in sizes):
            raise InputError(f"layer sizes must be at least 1, got {sizes}")
        if activation not in _ACTIVATIONS:
            raise InputError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {activation!r}")
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes[:-1]):
            layers += [dense(n_in, n_out), _ACTIVATIONS[activation]()]
        last = dense(sizes[-2], sizes[-1])
        with torch.no_grad():
            last.weight.mul_(output_scale)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Linear(MLP):
    """One affine map, the encoder and the decoder of the linear models.

    Arguments:
        in_features: size of the input.
        out_features: size of the output.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, hidden=())


class ConvEncoder(Module):
    """A convolutional encoder, flat images [*, C H W] to logits [*, out_features].

    Arguments:
        out_features: number of latents.
        image_shape: (C, H, W); H and W divisible by 4.
        channels: width of the first convolution; the second has twice as many.

    Raises:
        InputError: H or W is not divisible by 4.
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


class FactorialPrior(Module):
    """Independent latents with learned logits, from 0.

    Arguments:
        num_latents: D, size of the flat logits (D C for categorical latents).
    """

    def __init__(self, num_latents: int = 200) -> None:
        super().__init__()
        if num_latents < 1:
            raise InputError(f"num_latents must be at least 1, got {num_latents}")
        self.logits = nn.Parameter(torch.zeros(num_latents))

    def forward(self) -> Tensor:
        return self.logits


def dense(in_features: int, out_features: int) -> nn.Linear:
    """An affine map with Glorot-uniform weights and zero biases."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) != 3 or image_shape[1] % 4 or image_shape[2] % 4:
        raise InputError(f"image_shape must be (channels, height, width), the last two divisible by 4, got {tuple(image_shape)}")
    return (image_shape[0], image_shape[1], image_shape[2])
