"""Binary pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution

from dvae.likelihoods.base import Likelihood
from dvae.objectives import bernoulli_log_likelihood

__all__ = ["Bernoulli"]


class Bernoulli(Likelihood):
    r"""Independent binary pixels; the outputs are their logits.

    .. math:: \log p(x) = \sum_d x_d l_d - \log(1 + e^{l_d})

    Grey levels in [0, 1] are taken too, as probabilities of a pixel being 1: then it is a cross-entropy, and no bound on log p(x).

    Example:
        >>> likelihood = dvae.likelihoods.Bernoulli()
        >>> likelihood.log_prob(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).exp()
        tensor([0.2500])
        >>> likelihood.covers(torch.tensor([[1.0, 0.0]])), likelihood.covers(torch.tensor([[0.5, 0.0]]))
        (True, False)
    """

    def forward(self, outputs: Tensor) -> BernoulliDistribution:
        return BernoulliDistribution(logits=outputs, validate_args=False)

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        # The distribution's own is the same but for grey levels, which it refuses, and for half precision, in which it adds up.
        return bernoulli_log_likelihood(x, outputs)

    def start(self, mean: Tensor) -> Tensor:
        """The mean's logit, cut off at those of .001 and .999 (Grathwohl et al. 2018)."""
        return torch.logit(mean.clamp(0.001, 0.999))
