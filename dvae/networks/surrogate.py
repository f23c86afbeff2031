"""RELAX's and LAX's surrogate network r."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dvae.config import Module
from dvae.networks.dense import affine, dense

__all__ = ["SurrogateNetwork"]


class SurrogateNetwork(Module):
    r"""r(x, z) of RELAX and LAX: context and z, concatenated, through ReLU layers to a scalar.

    .. math:: r(x, z) = w^\top \text{ReLU}(\ldots \text{ReLU}(W [x, z] + v) \ldots) + w_0

    Arguments:
        num_latents: D, the size of a flat z.
        num_context: C, the size of the context; 0 for none.
        hidden: units per hidden layer.
        depth: number of hidden layers (2 or 4 in the paper).

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018. https://arxiv.org/abs/1711.00123

    Example: the context is the same for every sample.

        >>> r = dvae.networks.SurrogateNetwork(num_latents=3, num_context=8, hidden=16)
        >>> r(torch.zeros(4, 5, 3), torch.zeros(5, 8)).shape
        torch.Size([4, 5])
    """

    def __init__(self, num_latents: int, num_context: int = 0, *, hidden: int = 200, depth: int = 2) -> None:
        super().__init__()
        self.num_context = num_context
        first = dense(num_context + num_latents, hidden)
        # One dense layer on the concatenation, kept as its two blocks: the context's product is then neither repeated for
        # every sample nor differentiated along z.
        context_weight, latent_weight = first.weight.detach().split([num_context, num_latents], dim=1)
        self.context_weight = nn.Parameter(context_weight.clone()) if num_context else None
        self.latent_weight = nn.Parameter(latent_weight.clone())
        self.bias = nn.Parameter(torch.zeros(hidden))
        layers: list[nn.Module] = [nn.ReLU()]
        for _ in range(depth - 1):
            layers += [dense(hidden, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, dense(hidden, 1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """[*, B, D] and [*, B, C] to [*, B]."""
        pre_activation = affine(z, self.latent_weight, self.bias)
        if self.context_weight is not None and context is not None:
            pre_activation = pre_activation + nn.functional.linear(context, self.context_weight)
        return self.layers(pre_activation).squeeze(-1)
