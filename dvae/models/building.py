"""Making a model's networks from what a user gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dvae.config import instantiate
from dvae.errors import InputError
from dvae.latents import Spec
from dvae.likelihoods import Likelihood
from dvae.networks import Linear

__all__ = ["NetworkSizes", "check_sizes", "linear_or_given", "network_sizes", "require_at_least", "size_of_example"]


def size_of_example(num_pixels: int | None, image_shape: Sequence[int] | None) -> tuple[int, tuple[int, ...] | None]:
    """How many values x has, and its (channels, height, width) where it is an image, from either or both; 784 from neither.

    Raises:
        InputError: they are not positive, or contradict each other.
    """
    if image_shape is None:
        num_pixels = 784 if num_pixels is None else num_pixels
        require_at_least(1, num_pixels=num_pixels)
        side = math.isqrt(num_pixels)
        return num_pixels, (1, side, side) if side * side == num_pixels else None
    if len(image_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in image_shape):
        raise InputError(f"image_shape must be three positive integers (channels, height, width), got {image_shape!r}")
    if num_pixels not in (None, math.prod(image_shape)):
        raise InputError(f"num_pixels must be {math.prod(image_shape)} for image_shape {tuple(image_shape)}, got {num_pixels}")
    return math.prod(image_shape), tuple(image_shape)


class NetworkSizes(NamedTuple):
    """For each stochastic layer, from the pixels up, what its encoder and its decoder are told of their sizes, by argument."""

    encoders: list[dict[str, Any]]
    decoders: list[dict[str, Any]]


def network_sizes(
    num_pixels: int, image_shape: Sequence[int] | None, latent: Spec, likelihood: Likelihood, num_layers: int
) -> NetworkSizes:
    """The sizes of a model's networks: ``in_features`` and ``out_features``, and of those next to an image its shape."""
    above, logits = [latent.num_features] * num_layers, [latent.num_logits] * num_layers
    num_outputs = num_pixels * likelihood.outputs_per_pixel
    encoders = [_sizes(*both) for both in zip([num_pixels, *above[1:]], logits, strict=True)]
    decoders = [_sizes(*both) for both in zip(above, [num_outputs, *logits[1:]], strict=True)]
    if image_shape is not None:
        encoders[0]["image_shape"] = decoders[0]["image_shape"] = list(image_shape)
    decoders[0]["outputs_per_pixel"] = likelihood.outputs_per_pixel
    return NetworkSizes(encoders, decoders)


def _sizes(in_features: int, out_features: int) -> dict[str, Any]:
    return {"in_features": in_features, "out_features": out_features}


def linear_or_given(
    given: nn.Module | Mapping[str, Any] | Sequence[Any] | None, name: str, sizes: Sequence[Mapping[str, Any]]
) -> nn.ModuleList:
    """One network per stochastic layer: those given, of the right sizes, or affine maps.

    Arguments:
        given: a module, a config, a list of these, or None.
        name: what the argument is called, for messages.
        sizes: each network's; a config gets those that its class takes and it does not say.

    Raises:
        InputError: there are more or fewer than layers, or one takes or gives another size.
    """
    if given is None:
        return nn.ModuleList(Linear(own["in_features"], own["out_features"]) for own in sizes)
    listed = list(given) if isinstance(given, (list, tuple, nn.ModuleList)) else [given]
    if len(listed) != len(sizes):
        raise InputError(f"{name} must be {len(sizes)} modules, one per stochastic layer, got {len(listed)}")
    modules = [instantiate(item, nn.Module, name, optional=own) for item, own in zip(listed, sizes, strict=True)]
    for module, own in zip(modules, sizes, strict=True):
        check_sizes(module, name, own["in_features"], own["out_features"])
    return nn.ModuleList(modules)


def check_sizes(module: nn.Module, name: str, n_in: int, n_out: int) -> None:
    """An InputError that calls a module ``name`` where it does not take [*, n_in] to [*, n_out]."""
    try:
        with torch.no_grad():
            shape = tuple(module(torch.zeros(1, 2, n_in)).shape)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{name} must take [*, {n_in}] to [*, {n_out}]; it raised: {str(error).splitlines()[0]}") from None
    if shape != (1, 2, n_out):
        raise InputError(f"{name} must take [*, {n_in}] to [*, {n_out}], but took (1, 2, {n_in}) to {shape}")


def require_at_least(bound: float, **values: float) -> None:
    """An InputError that names the first value below the bound."""
    for name, value in values.items():
        if not value >= bound:
            raise InputError(f"{name} must be at least {bound}, got {value}")
