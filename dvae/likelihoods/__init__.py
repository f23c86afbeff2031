"""Distributions of the data given the decoder's outputs, p(x | b)."""

from dvae.likelihoods.base import Likelihood
from dvae.likelihoods.bernoulli import Bernoulli

__all__ = ["Bernoulli", "Likelihood"]
