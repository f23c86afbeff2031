"""The activations that networks can be asked for by name."""

from __future__ import annotations

import torch
from torch import nn

from dvae.errors import InputError

__all__ = ["activation", "gain"]


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}


def activation(name: str) -> nn.Module:
    """A new layer of a name: "tanh", "relu", "leaky_relu", "elu" or "silu".

    Raises:
        InputError: there is none of this name.
    """
    if name not in _ACTIVATIONS:
        raise InputError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


def gain(name: str) -> float:
    r"""What weights before an activation are scaled by so that signals keep their size: :math:`E[f(x)^2]^{-1/2}`, x normal.

    Reference: He, Zhang, Ren & Sun, *Delving Deep into Rectifiers*, 2015, where it is :math:`\sqrt 2`, for ReLU.
    """
    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    weight = torch.softmax(-x.square() / 2, 0)
    return (weight * activation(name)(x).square()).sum().rsqrt().item()
