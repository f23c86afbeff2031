"""Latent distributions, with the relaxations that gradient estimators need.

A latent is drawn through explicit noise: ``u`` uniform on (0, 1) gives the relaxed sample ``z = relaxed(u)``, and its hard sample
is ``b = hard(z)``. So a training step is a pure function of its parameters, its batch and its noise.
"""

from dvae.latents.base import Discrete, Latent, Spec
from dvae.latents.bernoulli import Bernoulli
from dvae.latents.categorical import Categorical
from dvae.latents.gaussian import Gaussian

FAMILIES: tuple[type[Latent], ...] = (Bernoulli, Categorical, Gaussian)
"""All families of the library."""

__all__ = ["FAMILIES", "Bernoulli", "Categorical", "Discrete", "Gaussian", "Latent", "Spec"]
