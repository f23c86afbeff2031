"""Dense maps in which a variable's outputs see the variables before it alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks.activations import activation as activation_layer

__all__ = ["MaskedMLP"]


class MaskedMLP(Module):
    r"""A multi-layer perceptron whose outputs for variable d depend on the variables before d alone (MADE).

    .. math:: \text{out}_d = m_d(\text{in}_1, \ldots, \text{in}_{d-1})

    Every unit has a degree, the last variable that it may see, and weights between degrees that do not fit are masked; inputs are
    also connected to outputs at once. The map starts at zero.

    Arguments:
        num_variables: D.
        inputs: numbers that each variable comes as.
        outputs: numbers that each variable gets.
        hidden: width of each hidden layer; none for a logistic regression of each variable on those before it.
        activation: "tanh", "relu", "leaky_relu", "elu" or "silu".
        num_context: numbers that all variables see, before the variables in the input.

    Raises:
        InputError: a size is less than 1, or the activation is unknown.

    References:
        Germain, Gregor, Murray & Larochelle, *MADE: Masked autoencoder for distribution estimation*, 2015.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> network = dvae.networks.MaskedMLP(3, hidden=[16])
        >>> network(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        num_variables: int,
        inputs: int = 1,
        outputs: int = 1,
        hidden: Sequence[int] = (200,),
        activation: str = "relu",
        num_context: int = 0,
    ) -> None:
        super().__init__()
        sizes = [num_variables, inputs, outputs, *hidden]
        if any(size < 1 for size in sizes):
            raise InputError(f"num_variables, inputs, outputs and hidden layers must be at least 1, got {sizes}")
        of_variables = torch.arange(1, num_variables + 1)
        first = torch.cat([torch.zeros(num_context, dtype=torch.int64), of_variables.repeat_interleave(inputs)])
        last = of_variables.repeat_interleave(outputs)
        # Spread over all that a unit may have and an output see: from the context alone to all variables but the last.
        degrees = [first, *(torch.arange(width) * num_variables // width for width in hidden)]
        activation_layer(activation)  # named also where there is no hidden layer
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(degrees):
            layers += [_Masked(before, after), activation_layer(activation)]
        self.layers = nn.Sequential(*layers, _Masked(degrees[-1], last, starts_at_zero=True)) if layers else None
        self.direct = _Masked(first, last, starts_at_zero=True)

    def forward(self, x: Tensor) -> Tensor:
        direct = self.direct(x)
        return direct if self.layers is None else direct + self.layers(x)


class _Masked(nn.Linear):
    """An affine map without the weights from units to others that may not see them; the last one of a way starts at zero."""

    before: Tensor
    after: Tensor

    def __init__(self, before: Tensor, after: Tensor, starts_at_zero: bool = False) -> None:
        super().__init__(len(before), len(after))
        self.is_last = starts_at_zero
        # Degrees and not the mask: a step copies every buffer, and a compiled one compares while it multiplies.
        self.register_buffer("before", before, persistent=False)
        self.register_buffer("after", after, persistent=False)
        (nn.init.zeros_ if starts_at_zero else nn.init.xavier_uniform_)(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        # A hidden unit may see what its degree names, an output what is before its variable.
        allowed = self.after[:, None] > self.before if self.is_last else self.after[:, None] >= self.before
        return F.linear(x, self.weight * allowed, self.bias)
