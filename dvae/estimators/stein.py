"""Estimators with control variates from discrete Stein operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.estimators.control_variates import controlled
from dvae.latents import Bernoulli, Categorical, Discrete
from dvae.networks import MLP

__all__ = ["RODEO"]


class RODEO(GradientEstimator[Discrete]):
    r"""Leave-one-out with two learned control variates from a discrete Stein operator.

    .. math::
        A h(b) = \frac1D \sum_i \sum_c q(b_i = c) \big(h(b_{i \to c}) - h(b)\big), \qquad E_q[A h(b)] = 0

    .. math::
        g = \frac1K \sum_k \Big(f(b_k) - \frac{1}{K-1} \sum_{j \ne k} \big(f(b_j) + \alpha A h_j(b_j)\big)\Big) \nabla \log q(b_k)
        + \beta A(\tilde h_k \nabla \log q)(b_k)

    with :math:`h_k(b) = \frac{1}{K-1} \sum_{j \ne k} H(f'(b_j)^\top (b - b_j), f(b_j))`, one small network H with two outputs, h
    and h~. The operator is the paper's Gibbs-type one. At a neighbour of b_k the first argument is the one at b_k plus one product,
    so no neighbour is ever built: memory grows with D, not with D^2. H, alpha and beta are phi; alpha and beta start at 0, where
    the estimator is :class:`dvae.estimators.LOO`.

    Requires: the derivative of f at hard samples. Cost: K evaluations of f and K of f with its derivative, and H at every
    neighbour. When: two or three samples, and time for H.

    Arguments:
        num_samples: K, at least 2.
        hidden: units of each hidden layer of H.
        depth: number of hidden layers of H.

    Raises:
        InputError: an argument is outside its range.

    References:
        Shi, Zhou, Hwang, Titsias & Mackey, *Gradient Estimation with Discrete Stein Operators*, 2022.
        https://arxiv.org/abs/2202.09497

    Example: before its first step it is leave-one-out.

        >>> q, f = dvae.latents.Bernoulli(torch.zeros(1, 3)), lambda b: b.square().sum(-1)
        >>> noise = q.noise(1, 2)
        >>> dvae.estimators.RODEO()(f, q, noise=noise).grad.allclose(dvae.estimators.LOO()(f, q, noise=noise).grad)
        True
    """

    reference = "Shi et al. 2022"
    latents = (Bernoulli, Categorical)
    differentiates = True
    derivative_at_sample = True
    evaluations_per_sample = 2

    def __init__(self, num_samples: int = 2, *, hidden: int = 100, depth: int = 1) -> None:
        if num_samples < 2:
            raise InputError(f"num_samples must be at least 2 to leave one out, got {num_samples}")
        if hidden < 1 or depth < 1:
            raise InputError(f"hidden and depth must be at least 1, got {hidden} and {depth}")
        super().__init__(num_samples)
        self.network = MLP(2, 2, [hidden] * depth, "leaky_relu")
        self.alpha = nn.Parameter(torch.zeros(()))
        self.beta = nn.Parameter(torch.zeros(()))

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        num_variables = q.logits.shape[-q.event_dim]
        slope = self.derivative(f, draw)
        own, other = draw.b[None], _others(draw.b)
        other_slope, other_value = _others(slope), _others(draw.value)
        projection = q.flat(other_slope * (own - other)).sum(-1)  # [K - 1, K, B]
        probs, change = q.moves(own, other_slope)  # [K - 1, K, B, D, n]

        here, moved = self.h(projection, other_value, change)  # [2, K, B], [2, K, B, D, n]
        difference = probs * (moved - here[..., None, None])
        stein, tilde = difference.sum((-2, -1)) / num_variables  # A h(b_k) and A h~(b_k)

        value = draw.value + self.alpha * stein
        baseline = (value.sum(0) - value) / (self.num_samples - 1)
        # A(h~ s)(b), with s(b_{i->c}) = s(b) + displacement: two sums over moves.
        correction = q.score(draw.b, tilde) + q.moved(draw.b, probs[0] * moved[1]) / num_variables
        return controlled(q, draw.b, draw.value, baseline, self.beta * correction)

    def h(self, projection: Tensor, value: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """h and h~ at b_k, [2, K, B], and at its neighbours, [2, K, B, D, n]: means over the other samples.

        Arguments:
            projection, value: the network's two features at b_k, [K - 1, K, B].
            change: what a move adds to the projection, [K - 1, K, B, D, n].
        """
        first: Any = self.network.layers[0]
        others: Any = self.network.layers[1:]
        units = first(torch.stack([projection, value], -1))
        here = others(units).mean(0).movedim(-1, 0)
        # A move changes one feature of the two, and so every unit of the first layer by one product.
        slope = first.weight[:, 0]
        if not torch.compiler.is_dynamo_compiling():
            moved = units[..., None, None, :] + change[..., None] @ slope[None]
            return here, others(moved).mean(0).movedim(-1, 0)
        # Compiled, the last layer as sums over units is one pass, in which no unit is stored; a product reads all from memory.
        *between, last = others
        moved = units.movedim(-1, 0)[..., None, None] + slope.view(-1, 1, 1, 1, 1, 1) * change
        for layer in between:
            moved = layer(moved.movedim(0, -1)).movedim(-1, 0) if isinstance(layer, nn.Linear) else layer(moved)
        sums = [(weight.view(-1, 1, 1, 1, 1, 1) * moved).sum(0) for weight in last.weight]
        return here, torch.stack([one + bias for one, bias in zip(sums, last.bias, strict=True)]).mean(1)

    def summary(self) -> dict[str, Tensor]:
        return {"alpha": self.alpha.detach(), "beta": self.beta.detach()}


def _others(value: Tensor) -> Tensor:
    """For each sample the other ones, [K, *] to [K - 1, K, *]."""
    return torch.stack([value.roll(-shift, 0) for shift in range(1, value.shape[0])])
