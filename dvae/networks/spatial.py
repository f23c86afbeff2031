"""Fully convolutional maps between images and codes that lie on a grid, and the surrogate network on that grid.

Codes and logits are flat, [*, H' W' D], place by place, so that estimators see what they always see. A module here has a `grid`,
(H', W'), and computes for whatever grid that is set to, with the same weights: :meth:`dvae.VAE.at` sets it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks.activations import gain
from dvae.networks.convolutional import check_sizes, fan_in

__all__ = ["ResidualDecoder", "ResidualEncoder", "SpatialSurrogate"]

_ACTIVATION = "silu"


class ResidualEncoder(Module):
    r"""A fully convolutional encoder, flat images [*, C H W] to logits at the places of a grid, [*, H/stride W/stride D], flat.

    .. math:: x \to x + W_2 \, \text{SiLU}(\text{GN}(W_1 \, \text{SiLU}(\text{GN}(x))))

    are its residual blocks, W_1 of 3 x 3 places and W_2 of one. Halvings come first, blocks after them. Normalisation is over
    groups of channels of one example. Weights are normal, of a scale at which signals keep their size, and each block is the
    identity at first; biases start at 0.

    Arguments:
        out_features: number of logits of an image, a multiple of the places. In the config of a model's network, the model's own
            where it is None: 256 latents of a 32 x 32 image at stride 4, whose grid is 8 x 8, are 4 bits at each place.
        image_shape: (C, H, W); H and W divisible by the stride; likewise.
        stride: pixels of a place's side: 2, 4, 8 or another power of two.
        channels: width of the first convolution; each further halving has twice as many.
        blocks: how many residual blocks.
        output_scale: standard deviation of the initial logits. At the default the code says enough of the image for the decoder to
            find it before the KL has emptied it.
        channels_last: keep weights in the order of memory that has a pixel's channels side by side: faster, in other last digits.

    Raises:
        InputError: a size is less than 1, the stride is no power of two, H or W is not divisible by it, or ``out_features`` is no
            multiple of the places.

    References:
        van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning*, 2017. https://arxiv.org/abs/1711.00937

        Wu & He, *Group Normalization*, 2018. https://arxiv.org/abs/1803.08494

    Example:
        >>> encoder = dvae.networks.ResidualEncoder(out_features=12, image_shape=(1, 8, 8), channels=4)
        >>> encoder(torch.zeros(5, 64)).shape, encoder.grid  # 3 logits at each of 2 x 2 places
        (torch.Size([5, 12]), (2, 2))
    """

    def __init__(
        self,
        out_features: int | None = None,
        image_shape: Sequence[int] | None = None,
        stride: int = 4,
        channels: int = 32,
        blocks: int = 2,
        output_scale: float = 2.0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.depth, self.grid = _depth_and_grid(image_shape, stride)
        check_sizes(channels=channels, blocks=blocks)
        self.stride = stride
        widths = _widths(channels, stride)
        layers: list[nn.Module] = [_halving(self.depth, widths[0])]
        for narrow, wide in itertools.pairwise(widths):
            layers += [*_normalized(narrow), _halving(narrow, wide)]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        outputs = _per_place("out_features", out_features, self.grid)
        last = nn.Conv2d(widths[-1], outputs, 3, padding=1)
        self.layers = nn.Sequential(*layers, *_normalized(widths[-1]), last)
        _initialize(self.layers, last, output_scale * gain(_ACTIVATION))
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.grid
        images = x.reshape(-1, self.depth, height * self.stride, width * self.stride)
        return _places_first(self.layers(images)).reshape(*x.shape[:-1], -1)


class ResidualDecoder(Module):
    """The mirror image of :class:`ResidualEncoder`, latents [*, H/stride W/stride D] to what the likelihood takes, [*, C H W].

    Arguments:
        in_features: number of a sample's values, a multiple of the places. In the config of a model's network, the model's own
            where it is None.
        image_shape: (C, H, W); H and W divisible by the stride; likewise.
        stride: pixels of a place's side, as the encoder's.
        channels: width before the last layer; each halving towards the code has twice as many.
        blocks: how many residual blocks.
        outputs_per_pixel: numbers that the likelihood takes for each pixel, 1 where it is None; likewise. The output is then
            [*, outputs_per_pixel C H W], first the first number of every pixel.
        channels_last: as the encoder's.

    Raises:
        InputError: as :class:`ResidualEncoder`.

    Example:
        >>> decoder = dvae.networks.ResidualDecoder(in_features=12, image_shape=(1, 8, 8), channels=4)
        >>> decoder(torch.zeros(5, 12)).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        in_features: int | None = None,
        image_shape: Sequence[int] | None = None,
        stride: int = 4,
        channels: int = 32,
        blocks: int = 2,
        outputs_per_pixel: int | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        outputs_per_pixel = 1 if outputs_per_pixel is None else outputs_per_pixel
        depth, self.grid = _depth_and_grid(image_shape, stride)
        check_sizes(channels=channels, blocks=blocks, outputs_per_pixel=outputs_per_pixel)
        self.stride = stride
        widths = _widths(channels, stride)[::-1]
        inputs = _per_place("in_features", in_features, self.grid)
        layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1)]
        layers += [ResidualBlock(widths[0]) for _ in range(blocks)]
        for wide, narrow in itertools.pairwise(widths):
            layers += [*_normalized(wide), _doubling(wide, narrow)]
        last = _doubling(widths[-1], outputs_per_pixel * depth)
        self.layers = nn.Sequential(*layers, *_normalized(widths[-1]), last)
        _initialize(self.layers, last, 1.0)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, b: Tensor) -> Tensor:
        return self.layers(_channels_first(b.reshape(-1, b.shape[-1]), self.grid)).reshape(*b.shape[:-1], -1)


class SpatialSurrogate(Module):
    r"""r(x, z) of RELAX and LAX on a grid: the sum over places of a small network of a place's surroundings.

    .. math:: r(x, z) = \sum_{\text{places}} w^\top \text{ReLU}(\ldots \text{ReLU}(W * z + V * x + v) \ldots) + w_0

    W looks at 3 x 3 places of z and V at a place's own pixels. RELAX takes it by default where a model's code is on a grid.

    Arguments:
        num_latents: size of a flat z, a multiple of the places. In RELAX's config, where a model's code is on a grid, this, the
            image's shape and the stride are the model's where they are not said.
        image_shape: (C, H, W) of the context, which is x, flat; H and W divisible by the stride.
        stride: pixels of a place's side.
        hidden: units per hidden layer, at each place.
        depth: number of hidden layers.

    Raises:
        InputError: as :class:`ResidualEncoder`.

    Example: the context is the same for every sample.

        >>> r = dvae.networks.SpatialSurrogate(num_latents=12, image_shape=(1, 8, 8), hidden=16)
        >>> r(torch.zeros(4, 5, 12), torch.zeros(5, 64)).shape
        torch.Size([4, 5])
    """

    def __init__(self, num_latents: int, image_shape: Sequence[int], stride: int = 4, *, hidden: int = 200, depth: int = 2) -> None:
        super().__init__()
        self.depth, self.grid = _depth_and_grid(image_shape, stride)
        check_sizes(hidden=hidden, depth=depth)
        self.stride = stride
        inputs = _per_place("num_latents", num_latents, self.grid)
        self.latents = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.context = nn.Conv2d(self.depth, hidden, stride, stride=stride, bias=False)
        layers: list[nn.Module] = [nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(hidden, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """[*, B, H' W' D] and [*, B, C H W] to [*, B]."""
        pre_activation = _at_places(self.latents(_channels_first(z.reshape(-1, z.shape[-1]), self.grid)), z)
        if context is not None:
            height, width = self.grid
            images = context.reshape(-1, self.depth, height * self.stride, width * self.stride)
            pre_activation = pre_activation + _at_places(self.context(images), context)
        return self.layers(pre_activation).sum((-2, -1))


class ResidualBlock(nn.Module):
    """x plus a small network of it, which is 0 at first; see :class:`ResidualEncoder`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, last = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.layers = nn.Sequential(*_normalized(channels), first, *_normalized(channels), last)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H', W'] to the same."""
        return x + self.layers(x)


def _depth_and_grid(image_shape: Sequence[int] | None, stride: int) -> tuple[int, tuple[int, int]]:
    if image_shape is None:
        raise InputError("image_shape must be given as (channels, height, width), got None: the examples are no images")
    if stride < 2 or stride & (stride - 1):
        raise InputError(f"stride must be a power of two, 2, 4 or 8, got {stride}")
    if len(image_shape) != 3 or image_shape[1] % stride or image_shape[2] % stride or min(image_shape) < 1:
        raise InputError(
            f"image_shape must be (channels, height, width), both sides divisible by the stride {stride}, got {tuple(image_shape)}"
        )
    return image_shape[0], (image_shape[1] // stride, image_shape[2] // stride)


def _per_place(name: str, total: int | None, grid: tuple[int, int]) -> int:
    """How many of so many numbers are at each place."""
    places = math.prod(grid)
    if total is None:
        raise InputError(f"{name} must be given, got None")
    if total < 1 or total % places:
        less = f"{total // places * places} or " if total > places else ""
        raise InputError(
            f"{name}, of a model its num_latents, must be a multiple of {places}, for the code is on a grid of "
            f"{grid[0]} x {grid[1]} places, got {total}: take {less}{(max(total, 0) // places + 1) * places}"
        )
    return total // places


def _widths(channels: int, stride: int) -> list[int]:
    """Channels after each halving."""
    return [channels * 2**index for index in range(stride.bit_length() - 1)]


def _normalized(channels: int) -> list[nn.Module]:
    # Two channels or more in a group: one alone would lose all of a constant image.
    return [nn.GroupNorm(math.gcd(8, max(1, channels // 2)), channels), nn.SiLU()]


def _halving(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)


def _doubling(n_in: int, n_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)


def _initialize(layers: nn.Sequential, last: nn.Module, scale: float) -> None:
    # As in the other convolutional networks: at PyTorch's own weights the KL goes to 0 before the code is used.
    first = layers[0]
    for module in layers.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            own = scale if module is last else 1.0 if module is first else gain(_ACTIVATION)
            nn.init.normal_(module.weight, std=own / fan_in(module) ** 0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    for block in layers:
        if isinstance(block, ResidualBlock):
            nn.init.zeros_(block.layers[-1].weight)  # type: ignore[arg-type]


def _channels_first(flat: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, H' W' D], place by place, to [B, D, H', W']."""
    return flat.unflatten(-1, (*grid, -1)).movedim(-1, 1)


def _places_first(maps: Tensor) -> Tensor:
    """[B, D, H', W'] to [B, H', W', D]."""
    return maps.movedim(1, -1)


def _at_places(maps: Tensor, like: Tensor) -> Tensor:
    """[B, n, H', W'] to [*, H' W', n], with the leading dimensions of ``like`` [*, size]."""
    places = _places_first(maps).flatten(1, 2)
    return places.reshape(*like.shape[:-1], *places.shape[1:])
