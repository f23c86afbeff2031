"""Estimators for the K-sample bound."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators.antithetic import DisARM
from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.latents import Bernoulli, Categorical, Gaussian, Latent, PlackettLuce

__all__ = ["VIMCO", "MultiSampleDisARM"]


class VIMCO(GradientEstimator[Latent]):
    r"""Leave-one-out for the K-sample bound.

    .. math::
        \hat L = \log \frac{1}{K} \sum_k e^{l_k}, \qquad
        g = \sum_k (\hat L - \hat L_{-k}) \nabla \log q(b_k), \qquad l_k = f(b_k) = \log p(x, b_k) - \log q(b_k | x)

    where :math:`\hat L_{-k}`, what the bound is without what is special about sample k, has a mean of the others in place of l_k.
    The bound is also what theta is trained on.

    Requires: f's values. Cost: K evaluations of f. When: the K-sample bound is the objective.

    Arguments:
        num_samples: K, at least 2.
        mean: "geometric" (the mean of the other l, the paper's choice) or "arithmetic" (the logarithm of the mean of e^l).

    Raises:
        InputError: an argument is outside its range.

    References:
        Mnih & Rezende, *Variational inference for Monte Carlo objectives*, 2016. https://arxiv.org/abs/1602.06725

    Example: the value is the bound; it lies above the mean of the log-weights.

        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> estimator, noise = dvae.estimators.VIMCO(num_samples=5), q.noise(1, 5)
        >>> mean = q.hard(q.relaxed(noise[0])).sum(-1).mean()
        >>> bool(estimator(lambda b: b.sum(-1), q, noise=noise).value >= mean)
        True
    """

    reference = "Mnih & Rezende 2016"
    latents = (Bernoulli, Categorical, Gaussian, PlackettLuce)
    multi_sample = True

    def __init__(self, num_samples: int = 5, mean: Literal["geometric", "arithmetic"] = "geometric") -> None:
        if num_samples < 2:
            raise InputError(f"num_samples must be at least 2 to leave one out, got {num_samples}")
        if mean not in ("geometric", "arithmetic"):
            raise InputError(f"mean must be 'geometric' or 'arithmetic', got {mean!r}")
        super().__init__(num_samples)
        self.mean = mean

    def gradient(self, f: Objective, q: Latent, draw: Draw, context: Tensor | None) -> Tensor:
        others = _log_sum_of_others(draw.value)
        if self.mean == "geometric":
            replacement = (draw.value.sum(0) - draw.value) / (self.num_samples - 1)
        else:
            replacement = others - math.log(self.num_samples - 1)
        signal = torch.logsumexp(draw.value, 0) - torch.logaddexp(others, replacement)
        return self.num_samples * q.score(draw.b, signal)  # the estimate is a mean over K, the equation a sum


class MultiSampleDisARM(DisARM):
    r"""DisARM for the K-sample bound, with an antithetic partner for each sample.

    .. math::
        g = \sum_k \tfrac12 \Big(\hat L(l_k, m_{-k}) - \hat L(\tilde l_k, m_{-k})\Big) (b_k - \tilde b_k)\, \sigma(|\text{logits}|)

    averaged over the two choices of the others' log-weights m: the samples' own and their partners'.

    Requires: f's values. Cost: 2 K evaluations of f. When: as :class:`VIMCO`, for Bernoulli latents.

    Arguments:
        num_samples: K, at least 1; the bound, on which theta is trained too, is over these K.

    References:
        Dong, Mnih & Tucker, *DisARM: An Antithetic Gradient Estimator for Binary Latent Variables*, 2020.
        https://arxiv.org/abs/2006.10680

    Example: for K = 1 it is :class:`DisARM`.

        >>> q, f = dvae.latents.Bernoulli(torch.ones(1, 3)), lambda b: b.sum(-1)
        >>> noise = q.noise(1, 1)
        >>> one = dvae.estimators.MultiSampleDisARM(num_samples=1)(f, q, noise=noise)
        >>> one.grad.allclose(dvae.estimators.DisARM()(f, q, noise=noise).grad)
        True
    """

    reference = "Dong et al. 2020"
    multi_sample = True

    def __init__(self, num_samples: int = 5) -> None:
        super().__init__(num_samples)

    def gradient(self, f: Objective, q: Bernoulli, draw: Draw, context: Tensor | None) -> Tensor:
        partner = q.antithetic(draw.z)
        value, partner_value = draw.value, f(partner)
        difference = torch.zeros_like(value)
        for log_weights in (value, partner_value):
            others = _log_sum_of_others(log_weights)
            difference = difference + 0.5 * (torch.logaddexp(value, others) - torch.logaddexp(partner_value, others))
        return self.num_samples * self.half_difference(q, draw.b, partner, difference)


def _log_sum_of_others(log_weights: Tensor) -> Tensor:
    """log of the sum of e^l over the samples but one, [K, B]; -inf where there is only one."""
    alone = torch.eye(log_weights.shape[0], dtype=torch.bool, device=log_weights.device)
    alone = alone.reshape(*alone.shape, *(1,) * (log_weights.dim() - 1))
    return torch.logsumexp(torch.where(alone, -math.inf, log_weights[None]), 1)
