"""Convolutional maps between flat images and logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks.activations import activation as activation_layer
from dvae.networks.activations import gain

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(Module):
    """A convolutional encoder, flat images [*, C H W] to logits [*, out_features].

    Weights are normal, of a scale at which signals keep their size from layer to layer, up to ``output_scale``; biases start at 0.

    Arguments:
        out_features: number of latents. In the config of a model's network, the model's own where it is None.
        image_shape: (C, H, W); H and W divisible by 4; likewise.
        channels: width of the first convolution; the second has twice as many.
        activation: "silu", "tanh", "relu", "leaky_relu" or "elu".
        output_scale: factor on the last layer's initial weights. The default is for discrete latents: from binary images less their
            mean, which are small, it makes logits of a standard deviation of about 2, and the code says enough of the image for the
            decoder to find it before the KL has emptied it. For Gaussian latents give 1: some logits are logarithms there.

    Raises:
        InputError: a size is less than 1, H or W is not divisible by 4, or the activation is unknown.

    Example:
        >>> dvae.networks.ConvEncoder(out_features=20, image_shape=(1, 8, 8), channels=4)(torch.zeros(5, 64)).shape
        torch.Size([5, 20])
    """

    def __init__(
        self,
        out_features: int | None = None,
        image_shape: Sequence[int] | None = None,
        channels: int = 32,
        activation: str = "silu",
        output_scale: float = 10.0,
    ) -> None:
        super().__init__()
        if out_features is None:
            raise InputError("out_features must be given, got None")
        self.image_shape = _check_image_shape(image_shape)
        check_sizes(out_features=out_features, channels=channels)
        self.activation = activation
        depth, height, width = self.image_shape
        self.layers = nn.Sequential(
            nn.Conv2d(depth, channels, 4, stride=2, padding=1),
            activation_layer(activation),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            activation_layer(activation),
            nn.Flatten(),
            nn.Linear(2 * channels * (height // 4) * (width // 4), out_features),
        )
        _initialize(self.layers, activation, output_scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(-1, *self.image_shape)).reshape(*x.shape[:-1], -1)


class ConvDecoder(Module):
    """A convolutional decoder, latents [*, in_features] to what the likelihood takes, [*, C H W].

    Weights and biases start as in :class:`ConvEncoder`.

    Arguments:
        in_features: number of latents. In the config of a model's network, the model's own where it is None.
        image_shape: (C, H, W); H and W divisible by 4; likewise.
        channels: width of the last hidden layer; the one before has twice as many.
        activation: "silu", "tanh", "relu", "leaky_relu" or "elu".
        outputs_per_pixel: numbers that the likelihood takes for each pixel, 1 where it is None; likewise. The output is then
            [*, outputs_per_pixel C H W], first the first number of every pixel.

    Raises:
        InputError: a size is less than 1, H or W is not divisible by 4, or the activation is unknown.

    Example:
        >>> dvae.networks.ConvDecoder(in_features=20, image_shape=(1, 8, 8), channels=4)(torch.zeros(5, 20)).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        in_features: int | None = None,
        image_shape: Sequence[int] | None = None,
        channels: int = 32,
        activation: str = "silu",
        outputs_per_pixel: int | None = None,
    ) -> None:
        super().__init__()
        outputs_per_pixel = 1 if outputs_per_pixel is None else outputs_per_pixel
        if in_features is None:
            raise InputError("in_features must be given, got None")
        depth, height, width = _check_image_shape(image_shape)
        check_sizes(in_features=in_features, channels=channels, outputs_per_pixel=outputs_per_pixel)
        self.activation = activation
        self.layers = nn.Sequential(
            nn.Linear(in_features, 2 * channels * (height // 4) * (width // 4)),
            activation_layer(activation),
            nn.Unflatten(-1, (2 * channels, height // 4, width // 4)),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            activation_layer(activation),
            nn.ConvTranspose2d(channels, outputs_per_pixel * depth, 4, stride=2, padding=1),
            nn.Flatten(),
        )
        _initialize(self.layers, activation)

    def forward(self, b: Tensor) -> Tensor:
        return self.layers(b.reshape(-1, b.shape[-1])).reshape(*b.shape[:-1], -1)


def is_convolutional(module: nn.Module) -> bool:
    """Whether there are convolutions in it: large operations, which gain from threads and from being compiled early."""
    return any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d) for part in module.modules())


def _check_image_shape(image_shape: Sequence[int] | None) -> tuple[int, int, int]:
    if image_shape is None:
        raise InputError("image_shape must be given as (channels, height, width), got None: the examples are no images")
    if len(image_shape) != 3 or image_shape[1] % 4 or image_shape[2] % 4:
        raise InputError(f"image_shape must be (channels, height, width), the last two divisible by 4, got {tuple(image_shape)}")
    return (image_shape[0], image_shape[1], image_shape[2])


def check_sizes(**sizes: int) -> None:
    """An InputError that names the first size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} must be at least 1, got {size}")


def _initialize(layers: nn.Sequential, activation: str, output_scale: float = 1.0) -> None:
    # PyTorch's own initial weights let signals shrink from layer to layer: the code then says so little of the image, and has so
    # little of a say in the outputs, that the KL goes to 0 before it is used.
    weighted = [layer for layer in layers if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
    for layer in weighted:
        scale = output_scale if layer is weighted[-1] else gain(activation)
        nn.init.normal_(layer.weight, std=scale / fan_in(layer) ** 0.5)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def fan_in(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many numbers an output is the weighted sum of."""
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.weight[:, 0].numel() / math.prod(layer.stride)
    return layer.weight[0].numel()
