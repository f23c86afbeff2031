"""Dense maps from features to logits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks.activations import activation as activation_layer

__all__ = ["MLP", "Linear", "affine", "dense"]


class MLP(Module):
    """A multi-layer perceptron, [*, in_features] to [*, out_features], with Glorot-uniform weights and zero biases.

    The defaults are the nonlinear maps of Grathwohl et al. 2018: tanh, tanh, linear.

    Arguments:
        in_features: size of the input; in the config of a model's network, the model's own where it is None.
        out_features: size of the output; likewise.
        hidden: width of each hidden layer.
        activation: "tanh", "relu", "leaky_relu", "elu" or "silu".
        output_scale: factor on the last layer's initial weights; 0 starts the map at zero.

    Raises:
        InputError: a size is less than 1, or the activation is unknown.

    Example:
        >>> dvae.networks.MLP(784, 200, hidden=[100])(torch.zeros(5, 784)).shape
        torch.Size([5, 200])
    """

    def __init__(
        self,
        in_features: int | None = None,
        out_features: int | None = None,
        hidden: Sequence[int] = (200, 200),
        activation: str = "tanh",
        output_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if in_features is None or out_features is None:
            raise InputError(f"in_features and out_features must be given, got {in_features} and {out_features}")
        sizes = [in_features, *hidden, out_features]
        if any(size < 1 for size in sizes):
            raise InputError(f"layer sizes must be at least 1, got {sizes}")
        activation_layer(activation)  # named also where there is no hidden layer
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes[:-1]):
            layers += [dense(n_in, n_out), activation_layer(activation)]
        last = dense(sizes[-2], sizes[-1])
        with torch.no_grad():
            last.weight.mul_(output_scale)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Linear(MLP):
    """One affine map, the encoder and the decoder of the linear models.

    Arguments:
        in_features: size of the input; in the config of a model's network, the model's own where it is None.
        out_features: size of the output; likewise.

    Raises:
        InputError: a size is less than 1.

    Example:
        >>> dvae.networks.Linear(784, 200).config
        {'class_path': 'dvae.networks.Linear', 'init_args': {'in_features': 784, 'out_features': 200}}
    """

    def __init__(self, in_features: int | None = None, out_features: int | None = None) -> None:
        super().__init__(in_features, out_features, hidden=())


class Dense(nn.Linear):
    """PyTorch's linear layer, which a compiled step fuses the bias of into what follows the product."""

    def forward(self, input: Tensor) -> Tensor:
        return affine(input, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, as PyTorch's ``linear``."""
    if not torch.compiler.is_dynamo_compiling():
        return F.linear(x, weight, bias)
    # Compiled, a product with a bias starts from a copy of it for every row, as large as the output.
    product = F.linear(x, weight)
    return product + bias.to(product.dtype)


def dense(in_features: int, out_features: int) -> Dense:
    """An affine map with Glorot-uniform weights and zero biases."""
    layer = Dense(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
