"""Distributions of the top layer's code, p(b).

The one idea: a prior is a module whose `forward` returns a distribution over b, with `log_prob`, which also takes relaxed b,
`sample` and `kl`; a family of `dvae.latents` is such a distribution. The model never asks for a prior's class.

    >>> class Fixed(dvae.priors.Prior):
    ...     def build(self, latent):
    ...         self.latent = latent
    ...     def forward(self):
    ...         return self.latent(torch.zeros(self.latent.num_logits))
    >>> dvae.VAE(num_pixels=6, num_latents=4, prior=Fixed()).sample(2).shape
    torch.Size([2, 6])
"""

from dvae.priors.autoregressive import Autoregressive
from dvae.priors.base import Prior
from dvae.priors.boltzmann import BoltzmannMachine
from dvae.priors.factorial import Factorial, SpatialFactorial
from dvae.priors.spatial import SpatialAutoregressive

__all__ = ["Autoregressive", "BoltzmannMachine", "Factorial", "Prior", "SpatialAutoregressive", "SpatialFactorial"]
