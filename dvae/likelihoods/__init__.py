"""Distributions of the data given the decoder's outputs, p(x | b).

The one idea: a likelihood is a module whose `forward` turns the decoder's outputs into a `torch.distributions` object over x; the
data's range, the outputs per pixel, what the encoder sees and where training starts are its own facts. The model never asks for a
likelihood's class.

| data | likelihood |
|---|---|
| bits | `Bernoulli` |
| grey levels in [0, 1] | `ContinuousBernoulli`; under `Bernoulli` they give a cross-entropy, and no bound |
| 8-bit images, 0 to 255 | `DiscretizedLogistic` |
| labels, a few levels | `Categorical` |
| real numbers of any unit | `Normal` |
| counts | `Poisson`, `NegativeBinomial`; rows whose sum is given, such as words of documents: `Multinomial` |

It is an argument of the model, in Python `likelihood=dvae.likelihoods.Normal()`, as a flag `--model.likelihood
dvae.likelihoods.Normal`. Values that do not fit are refused with the name of one that takes them.

    >>> class Laplace(dvae.likelihoods.Likelihood):
    ...     def forward(self, outputs):
    ...         return torch.distributions.Laplace(outputs, 0.1)
    ...     def start(self, mean):
    ...         return mean
    >>> model = dvae.VAE(num_pixels=6, num_latents=4, likelihood=Laplace())
    >>> model.elbo(torch.randn(3, 6)).shape
    torch.Size([3])
"""

from dvae.likelihoods.base import Likelihood
from dvae.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from dvae.likelihoods.categorical import Categorical
from dvae.likelihoods.choice import check_values, suited
from dvae.likelihoods.counts import Multinomial, NegativeBinomial, Poisson
from dvae.likelihoods.gaussian import Normal
from dvae.likelihoods.logistic import DiscretizedLogistic

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Likelihood",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "check_values",
    "suited",
]
