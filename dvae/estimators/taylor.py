"""Estimators with the linear part of f as control variate: MuProp and double control variates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective, value_and_derivative
from dvae.estimators.control_variates import controlled
from dvae.latents import Bernoulli, Categorical, Discrete

__all__ = ["DoubleCV", "MuProp"]


class MuProp(GradientEstimator[Discrete]):
    r"""The score function with the first-order Taylor expansion of f around the mean as control variate.

    .. math:: g = (f(b) - c(b)) \nabla \log q(b) + f'(p)^\top \frac{\partial p}{\partial \text{logits}}, \qquad
        c(b) = f(p) + f'(p)^\top (b - p), \qquad p = E[b]

    Requires: the derivative of f at the mean. Cost: f at the sample, and f with its derivative at the mean. When: f is close to
    linear; elsewhere, at the mean of many hard variables, it is a poor guide.

    Arguments:
        num_samples: K, samples per example.

    References:
        Gu, Levine, Sutskever & Mnih, *MuProp: Unbiased Backpropagation for Stochastic Neural Networks*, 2016.
        https://arxiv.org/abs/1511.05176

    Example: of a linear f one sample gives the gradient itself.

        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> dvae.estimators.MuProp()(lambda b: b.sum(-1), q).grad
        tensor([[0.2500, 0.2500, 0.2500]])
    """

    reference = "Gu et al. 2016"
    latents = (Bernoulli, Categorical)
    differentiates = True
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        mean = q.probs.expand_as(draw.b)
        value, derivative = value_and_derivative(f, mean)
        expansion = value + q.flat(derivative * (draw.b - mean)).sum(-1)
        return controlled(q, draw.b, draw.value, expansion, q.mean_gradient(derivative))


class DoubleCV(GradientEstimator[Discrete]):
    r"""Leave-one-out with a linear control variate for each value, whose slope the other samples give.

    .. math::
        g = \frac1K \sum_k \Big(\hat f_k - \frac{1}{K-1} \sum_{j \ne k} \hat f_j\Big) \nabla \log q(b_k)
        + \alpha G_k^\top \frac{\partial p}{\partial \text{logits}}, \qquad
        \hat f_k = f(b_k) - \alpha G_k^\top (b_k - p), \qquad G_k = \frac{1}{K-1} \sum_{j \ne k} f'(b_j)

    Though G_j depends on b_k, it multiplies b_j - p, whose mean given all others is zero: the baseline stays unbiased. alpha is
    phi.

    Requires: the derivative of f at hard samples. Cost: K evaluations of f and K of f with its derivative. When: as
    :class:`dvae.estimators.LOO`, for an f with a derivative.

    Arguments:
        num_samples: K, at least 2.
        alpha: the initial scale of the control variate.

    Raises:
        InputError: ``num_samples`` is less than 2.

    References:
        Titsias & Shi, *Double Control Variates for Gradient Estimation in Discrete Latent Variable Models*, 2022.
        https://arxiv.org/abs/2111.05300

    Example: of a linear f two samples give the gradient itself where alpha is 1.

        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> dvae.estimators.DoubleCV(alpha=1.0)(lambda b: b.sum(-1), q).grad.detach()
        tensor([[0.2500, 0.2500, 0.2500]])
    """

    reference = "Titsias & Shi 2022"
    latents = (Bernoulli, Categorical)
    differentiates = True
    derivative_at_sample = True
    evaluations_per_sample = 2

    def __init__(self, num_samples: int = 2, alpha: float = 0.5) -> None:
        if num_samples < 2:
            raise InputError(f"num_samples must be at least 2 to leave one out, got {num_samples}")
        super().__init__(num_samples)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        derivative = self.derivative(f, draw)
        slope = self.alpha * _mean_of_others(derivative)
        value = draw.value - q.flat(slope * (draw.b - q.probs)).sum(-1)
        return controlled(q, draw.b, value, _mean_of_others(value), q.mean_gradient(slope))

    def summary(self) -> dict[str, Tensor]:
        return {"alpha": self.alpha.detach()}


def _mean_of_others(value: Tensor) -> Tensor:
    return (value.sum(0) - value) / (value.shape[0] - 1)
