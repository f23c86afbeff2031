"""Control variates: what REBAR, RELAX, LAX, MuProp and their kind share, and RELAX's surrogate network r_rho."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dvae.config import Module
from dvae.networks import dense

__all__ = ["SurrogateNetwork", "controlled", "weight_penalty"]

# The batch size of the published runs, in whose units a weight decay is stated (see RELAX).
PAPER_BATCH_SIZE = 24


def controlled(q: Any, b: Tensor, value: Tensor, control: Tensor, gradient: Tensor) -> Tensor:
    r"""The score-function estimator with a control variate c whose expectation has a known gradient, [K, B, D].

    .. math:: g = (f(b) - c) \nabla \log q(b) + \nabla E[c]

    Unbiased whatever c is, if ``gradient`` estimates the gradient of E[c] without bias: that of its closed form, or of its
    reparameterization.

    Arguments:
        q: the distribution that b was drawn from.
        b: hard samples, [K, B, D].
        value: f(b), [K, B].
        control: c, [K, B].
        gradient: of E[c] with respect to the logits, [K, B, D].
    """
    return q.score(b, value - control) + gradient


def weight_penalty(network: nn.Module | None, weight_decay: float, num_logits: int) -> Tensor | float:
    """The paper's weight decay of r, in the units of :class:`dvae.estimators.RELAX`; 0 where there is none."""
    if not weight_decay or network is None:
        return 0.0
    squares = [weight.square().sum() for weight in network.parameters() if weight.dim() > 1]
    return 0.5 * weight_decay * PAPER_BATCH_SIZE**2 * num_logits * torch.stack(squares).sum()


class SurrogateNetwork(Module):
    """r(x, z): concat(context, z) through ReLU layers to a scalar, as in Grathwohl et al. 2018.

    Arguments:
        num_latents: D, the size of a flat z.
        num_context: C, the size of the context; 0 for none.
        hidden: units per hidden layer.
        depth: number of hidden layers (2 or 4 in the paper).
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
        pre_activation = nn.functional.linear(z, self.latent_weight, self.bias)
        if self.context_weight is not None and context is not None:
            pre_activation = pre_activation + nn.functional.linear(context, self.context_weight)
        return self.layers(pre_activation).squeeze(-1)
