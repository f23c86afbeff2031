"""Counts: of events, of molecules, of words."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Multinomial as MultinomialDistribution
from torch.distributions import NegativeBinomial as NegativeBinomialDistribution
from torch.distributions import Poisson as PoissonDistribution

from dvae.likelihoods.base import Likelihood, raised

__all__ = ["Multinomial", "NegativeBinomial", "Poisson"]

# What has never been counted starts as if seen once in a thousand examples.
_LEAST_MEAN = 1e-3
# exp of more than this is no rate that counts in float32 have.
_LARGEST_LOG = 15.0


class _Counts(Likelihood):
    low = 0.0
    whole = True

    def features(self, x: Tensor, mean: Tensor) -> Tensor:
        """log(1 + x), less that of the mean: counts spread over orders of magnitude."""
        return x.log1p() - mean.log1p()


class Poisson(_Counts):
    r"""Independent counts, each with a variance equal to its mean; the outputs are the logarithms of the rates.

    .. math:: \log p(x) = \sum_d x_d \log \lambda_d - \lambda_d - \log x_d!

    Example:
        >>> likelihood = dvae.likelihoods.Poisson()
        >>> likelihood.log_prob(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
        tensor([-2.6931])
    """

    def forward(self, outputs: Tensor) -> PoissonDistribution:
        return PoissonDistribution(outputs.clamp(max=_LARGEST_LOG).exp(), validate_args=False)

    def start(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=_LEAST_MEAN).log()


class NegativeBinomial(_Counts):
    r"""Independent counts that vary more than Poisson's; the outputs are the logarithms of the mean m and of the dispersion r.

    .. math:: p(x) = \prod_d \frac{\Gamma(x_d + r_d)}{\Gamma(r_d) \, x_d!} \Big(\frac{r_d}{r_d + m_d}\Big)^{r_d}
        \Big(\frac{m_d}{r_d + m_d}\Big)^{x_d}, \qquad \text{variance } m + m^2 / r

    The likelihood of molecule counts of single cells (Lopez et al. 2018), here with a dispersion for every value.

    References:
        Lopez, Regier, Cole, Jordan & Yosef, *Deep generative modeling for single-cell transcriptomics*, 2018.
        https://doi.org/10.1038/s41592-018-0229-2

    Example:
        >>> likelihood = dvae.likelihoods.NegativeBinomial()
        >>> likelihood(torch.tensor([1.0, 0.0])).mean  # e^1
        tensor([2.7183])
    """

    outputs_per_pixel = 2

    def forward(self, outputs: Tensor) -> NegativeBinomialDistribution:
        log_mean, log_dispersion = (part.clamp(-_LARGEST_LOG, _LARGEST_LOG) for part in self.split(outputs))
        return NegativeBinomialDistribution(log_dispersion.exp(), logits=log_mean - log_dispersion, validate_args=False)

    def start(self, mean: Tensor) -> Tensor:
        return torch.cat([mean.clamp(min=_LEAST_MEAN).log(), torch.zeros_like(mean)])


class Multinomial(_Counts):
    r"""Counts of one example together, given their number: words of a document; the outputs are the logits of each word.

    .. math:: \log p(x \mid N) = \log N! - \sum_d \log x_d! + \sum_d x_d \log \pi_d, \qquad \pi = \text{softmax(outputs)}

    N, the number of words of a document, is given and not modelled. The mean, of samples and reconstructions, is pi.

    Example:
        >>> likelihood = dvae.likelihoods.Multinomial()
        >>> likelihood.log_prob(torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2)).exp()  # one of each, in either order
        tensor([0.5000])
    """

    def forward(self, outputs: Tensor) -> MultinomialDistribution:
        return MultinomialDistribution(1, logits=outputs, validate_args=False)

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        # The distribution's own takes a mask's entries, as many as there are, which neither vmap nor a compiled step can.
        weighted = x * raised(outputs).log_softmax(-1) - (x + 1).lgamma()
        return (x.sum(-1) + 1).lgamma() + weighted.sum(-1)

    def start(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=_LEAST_MEAN).log()
