"""Values in [0, 1]: binary, and continuous."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import ContinuousBernoulli as ContinuousBernoulliDistribution

from dvae.likelihoods.base import Likelihood, tilt_of
from dvae.objectives import bernoulli_log_likelihood

__all__ = ["Bernoulli", "ContinuousBernoulli"]


class Bernoulli(Likelihood):
    r"""Independent binary values; the outputs are their logits.

    .. math:: \log p(x) = \sum_d x_d l_d - \log(1 + e^{l_d})

    Grey levels in [0, 1] are taken too, as probabilities of a pixel being 1: then it is a cross-entropy, and no bound on log p(x).

    Example:
        >>> likelihood = dvae.likelihoods.Bernoulli()
        >>> likelihood.log_prob(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).exp()
        tensor([0.2500])
        >>> likelihood.covers(torch.tensor([[1.0, 0.0]])), likelihood.covers(torch.tensor([[0.5, 0.0]]))
        (True, False)
    """

    low = 0.0
    high = 1.0
    whole = True

    def forward(self, outputs: Tensor) -> BernoulliDistribution:
        return BernoulliDistribution(logits=outputs, validate_args=False)

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        # The distribution's own is the same but for grey levels, which it refuses, and for half precision, in which it adds up.
        return bernoulli_log_likelihood(x, outputs)

    def start(self, mean: Tensor) -> Tensor:
        """The mean's logit, cut off at those of .001 and .999 (Grathwohl et al. 2018)."""
        return torch.logit(mean.clamp(0.001, 0.999))

    def check(self, x: Tensor) -> None:
        """An InputError where x has values outside [0, 1]; grey levels are taken."""
        self._require_range(x, "values in [0, 1]")


class ContinuousBernoulli(Likelihood):
    r"""Independent grey levels in [0, 1], with a density; the outputs are logits.

    .. math:: p(x) = \prod_d C(\lambda_d) \lambda_d^{x_d} (1 - \lambda_d)^{1 - x_d}, \qquad \lambda = \sigma(\text{outputs})

    The Bernoulli's cross-entropy with the factor C that makes it a density, so that the ELBO is a bound on log p(x).

    References:
        Loaiza-Ganem & Cunningham, *The continuous Bernoulli: fixing a pervasive error in variational autoencoders*, 2019.
        https://arxiv.org/abs/1907.06845

    Example:
        >>> likelihood = dvae.likelihoods.ContinuousBernoulli()
        >>> likelihood.log_prob(torch.tensor([[0.3, 0.9]]), torch.zeros(1, 2)).exp()  # uniform
        tensor([1.])
    """

    low = 0.0
    high = 1.0

    def forward(self, outputs: Tensor) -> ContinuousBernoulliDistribution:
        return ContinuousBernoulliDistribution(logits=outputs, validate_args=False)

    def start(self, mean: Tensor) -> Tensor:
        def mean_at(logits: Tensor) -> Tensor:
            return ContinuousBernoulliDistribution(logits=logits, validate_args=False).mean

        return tilt_of(mean.double().clamp(0.03, 0.97), mean_at).to(mean.dtype)
