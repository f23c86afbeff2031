"""Distributions of the data given the decoder's outputs, p(x | b).

The one idea: a likelihood is a module whose `forward` turns the decoder's outputs into a `torch.distributions` object over x; the
data's range, the outputs per pixel and where training starts are its own facts. The model never asks for a likelihood's class.

    >>> class Gaussian(dvae.likelihoods.Likelihood):
    ...     def forward(self, outputs):
    ...         return torch.distributions.Normal(outputs, 0.1)
    ...     def start(self, mean):
    ...         return mean
    >>> model = dvae.VAE(num_pixels=6, num_latents=4, likelihood=Gaussian())
    >>> model.elbo(torch.rand(3, 6)).shape
    torch.Size([3])
"""

from dvae.likelihoods.base import Likelihood
from dvae.likelihoods.bernoulli import Bernoulli

__all__ = ["Bernoulli", "Likelihood"]
