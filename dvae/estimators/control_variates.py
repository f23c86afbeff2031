"""The control-variate equation that REBAR, RELAX, LAX, MuProp and their kind share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dvae.latents import Latent

__all__ = ["controlled", "weight_penalty"]


# The batch size of the published runs, in whose units a weight decay is stated (see RELAX).
PAPER_BATCH_SIZE = 24


def controlled(q: Latent, b: Tensor, value: Tensor, control: Tensor, gradient: Tensor) -> Tensor:
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
