"""Making a model's networks from what a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dvae.config import instantiate
from dvae.errors import InputError
from dvae.networks import Linear

__all__ = ["linear_or_given", "require_at_least"]


def linear_or_given(
    given: nn.Module | Mapping[str, Any] | Sequence[Any] | None, name: str, inputs: Sequence[int], outputs: Sequence[int]
) -> nn.ModuleList:
    """One network per stochastic layer: those given, of the right sizes, or affine maps.

    Arguments:
        given: a module, a config, a list of these, or None.
        name: what the argument is called, for messages.
        inputs, outputs: each network's sizes.

    Raises:
        InputError: there are more or fewer than layers, or one takes or gives another size.
    """
    if given is None:
        return nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in zip(inputs, outputs, strict=True))
    listed = list(given) if isinstance(given, (list, tuple, nn.ModuleList)) else [given]
    if len(listed) != len(inputs):
        raise InputError(f"{name} must be {len(inputs)} modules, one per stochastic layer, got {len(listed)}")
    modules = [instantiate(item, nn.Module, name) for item in listed]
    for module, n_in, n_out in zip(modules, inputs, outputs, strict=True):
        _check_sizes(module, name, n_in, n_out)
    return nn.ModuleList(modules)


def _check_sizes(module: nn.Module, name: str, n_in: int, n_out: int) -> None:
    try:
        with torch.no_grad():
            shape = tuple(module(torch.zeros(1, 2, n_in)).shape)
    except RuntimeError as error:
        raise InputError(f"{name} must take [*, {n_in}] to [*, {n_out}]; it raised: {str(error).splitlines()[0]}") from None
    if shape != (1, 2, n_out):
        raise InputError(f"{name} must take [*, {n_in}] to [*, {n_out}], but took (1, 2, {n_in}) to {shape}")


def require_at_least(bound: float, **values: float) -> None:
    """An InputError that names the first value below the bound."""
    for name, value in values.items():
        if not value >= bound:
            raise InputError(f"{name} must be at least {bound}, got {value}")
