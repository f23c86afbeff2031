"""Gaussian latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.latents.base import Latent, Spec, digits, open_interval

__all__ = ["Gaussian"]


# Of the quadrature, along each variable.
_NODES = 100


class Gaussian(Latent):
    r"""D independent normal variables per example; continuous, for the reparameterized estimators.

    .. math:: b = z = \mu + \sigma \Phi^{-1}(u), \qquad \text{logits} = (\mu, \log \sigma)

    Arguments:
        logits: [*, B, D, 2], the mean and the logarithm of the standard deviation of each variable. (All families call the
            encoder's output logits.)

    Raises:
        InputError: the logits have fewer than two dimensions, or the last is not 2.

    References:
        Kingma & Welling, *Auto-Encoding Variational Bayes*, 2014. https://arxiv.org/abs/1312.6114

    Example:
        >>> standard = dvae.latents.Gaussian(torch.zeros(1, 3, 2))
        >>> standard.kl(standard)
        tensor([0.])
    """

    event_dim = 2
    torch_class = torch.distributions.Normal
    example_scale = 0.2  # a standard deviation is the exponential of its logit

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits)
        if logits.shape[-1] != 2:
            raise InputError(f"logits must be [*, B, D, 2], mean and log standard deviation, got shape {tuple(logits.shape)}")

    @classmethod
    def from_torch(cls, q: Any) -> Latent:
        return cls(torch.stack([q.loc, q.scale.log()], -1))

    @classmethod
    def shapes(cls, num_latents: int, num_classes: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if num_classes is not None:
            raise InputError(f"num_classes is for Categorical latents, got {num_classes} for Gaussian")
        return (num_latents, 2), (num_latents,)

    @property
    def mean(self) -> Tensor:
        return self.logits[..., 0]

    @property
    def log_std(self) -> Tensor:
        """log sigma, [*, B, D]."""
        return self.logits[..., 1]

    def mode(self) -> Tensor:
        return self.mean

    def relaxed(self, u: Tensor) -> Tensor:
        """mean + std * (standard normal quantile of u), [*, B, D]."""
        return self.mean + self.log_std.exp() * torch.special.ndtri(open_interval(u))

    def hard(self, z: Tensor) -> Tensor:
        """z itself, without a gradient."""
        return z.detach()

    def standardized(self, b: Tensor) -> Tensor:
        """(b - mean) / std, [*, B, D]."""
        return (b - self.mean) * torch.exp(-self.log_std)

    def sample_gradient(self, b: Tensor, v: Tensor) -> Tensor:
        r""":math:`(\partial b / \partial \text{logits})^\top v` with the noise behind b held fixed, [*, B, D, 2]."""
        return torch.stack([v.expand_as(b), v * (b - self.mean)], -1)

    def log_prob(self, b: Tensor) -> Tensor:
        """log q(b), [*, B]."""
        return (-0.5 * self.standardized(b).square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def _score(self, b: Tensor) -> Tensor:
        standardized = self.standardized(b)
        return torch.stack([standardized * torch.exp(-self.log_std), standardized.square() - 1], -1)

    @classmethod
    def example(cls, num_variables: int) -> Spec:
        return Spec(cls, 2)

    @classmethod
    def extreme_logits(cls, ramp: Tensor, largest: float) -> Tensor:
        return 1.0 * ramp

    @property
    def num_states(self) -> int:
        return _NODES ** self.logits.shape[-2]

    def states(self) -> tuple[Tensor, Tensor]:
        """Nodes and weights of a Gauss-Hermite quadrature, which stands for enumeration."""
        nodes, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(_NODES))
        weights = weights / weights.sum()
        grid = digits(_NODES, self.logits.shape[-2], self.logits.device)
        return self.mean + self.log_std.exp() * nodes[grid], weights[grid].prod(-1)

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        distance = other.standardized(self.mean).square()
        return (0.5 * (ratio + distance - 1) + other.log_std - self.log_std).sum(-1)
