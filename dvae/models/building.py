"""Making a model's networks from what a user gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dvae.config import instantiate
from dvae.errors import InputError
from dvae.networks import Linear

__all__ = ["linear_or_given", "require_at_least", "size_of_example"]


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


def linear_or_given(
    given: nn.Module | Mapping[str, Any] | Sequence[Any] | None,
    name: str,
    inputs: Sequence[int],
    outputs: Sequence[int],
    known: Mapping[str, Any],
) -> nn.ModuleList:
    """One network per stochastic layer: those given, of the right sizes, or affine maps.

    Arguments:
        given: a module, a config, a list of these, or None.
        name: what the argument is called, for messages.
        inputs, outputs: each network's sizes; a config that does not say them gets them.
        known: further arguments that a config gets, where its class takes them and it does not say them.

    Raises:
        InputError: there are more or fewer than layers, or one takes or gives another size.
    """
    if given is None:
        return nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in zip(inputs, outputs, strict=True))
    listed = list(given) if isinstance(given, (list, tuple, nn.ModuleList)) else [given]
    if len(listed) != len(inputs):
        raise InputError(f"{name} must be {len(inputs)} modules, one per stochastic layer, got {len(listed)}")
    modules = []
    for item, n_in, n_out in zip(listed, inputs, outputs, strict=True):
        sizes = {"in_features": n_in, "out_features": n_out, **{key: value for key, value in known.items() if value is not None}}
        modules.append(instantiate(item, nn.Module, name, optional=sizes))
    for module, n_in, n_out in zip(modules, inputs, outputs, strict=True):
        _check_sizes(module, name, n_in, n_out)
    return nn.ModuleList(modules)


def _check_sizes(module: nn.Module, name: str, n_in: int, n_out: int) -> None:
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
