"""Antithetic estimators: f at samples that are as unlike as possible, for Bernoulli latents."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.latents import Bernoulli

__all__ = ["ARM", "ARMS", "U2G", "DisARM"]


class ARM(GradientEstimator[Bernoulli]):
    r"""Augment-REINFORCE-merge: the difference of f at two samples from opposite uniforms.

    .. math:: g = (f(b) - f(\tilde b)) (u - \tfrac12), \qquad b = 1[u > 1 - p], \qquad \tilde b = 1[1 - u > 1 - p]

    Requires: f's values. Cost: two evaluations of f per sample. When: to compare with its paper; :class:`DisARM` has less variance
    for the same cost.

    Arguments:
        num_samples: K, pairs per example.

    References:
        Yin & Zhou, *ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks*, 2019. https://arxiv.org/abs/1807.11143

    Example:
        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> estimate = dvae.estimators.ARM(num_samples=100_000)(lambda b: b.sum(-1), q)
        >>> estimate.grad.allclose(torch.tensor(0.25), atol=0.02)
        True
    """

    reference = "Yin & Zhou 2019"
    latents = (Bernoulli,)
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Bernoulli, draw: Draw, context: Tensor | None) -> Tensor:
        difference = draw.value - f(q.antithetic(draw.z))
        return difference[..., None] * (draw.noise[0] - 0.5)


class DisARM(GradientEstimator[Bernoulli]):
    r"""ARM with the uniforms integrated out given the pair; also called U2G.

    .. math:: g = \tfrac12 (f(b) - f(\tilde b)) (b - \tilde b)\, \sigma(|\text{logits}|)

    Only latents in which the pair differs get a gradient. U2G is the unbiased uniform gradient of Yin et al., the same estimator.

    Requires: f's values. Cost: two evaluations of f per sample. When: f has no derivative and two evaluations can be had.

    Arguments:
        num_samples: K, pairs per example.

    References:
        Dong, Mnih & Tucker, *DisARM: An Antithetic Gradient Estimator for Binary Latent Variables*, 2020.
        https://arxiv.org/abs/2006.10680

        Yin, Ho, Yan, Qian & Zhou, *Probabilistic Best Subset Selection via Gradient-Based Optimization*, 2020.
        https://arxiv.org/abs/2006.06448

    Example: at p = 1/2 a pair is of a 0 and a 1, so that with a single latent one pair gives the gradient itself.

        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 1))
        >>> dvae.estimators.DisARM()(lambda b: b.sum(-1), q).grad
        tensor([[0.2500]])
    """

    reference = "Dong, Mnih & Tucker 2020"
    latents = (Bernoulli,)
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Bernoulli, draw: Draw, context: Tensor | None) -> Tensor:
        partner = q.antithetic(draw.z)
        return self.half_difference(q, draw.b, partner, draw.value - f(partner))

    def half_difference(self, q: Bernoulli, b: Tensor, partner: Tensor, difference: Tensor) -> Tensor:
        """Half the difference of the objective at b and at its partner, [K, B], as a gradient, [K, B, D]."""
        return 0.5 * difference[..., None] * (b - partner) * torch.sigmoid(q.logits.abs())


U2G = DisARM


class ARMS(GradientEstimator[Bernoulli]):
    r"""Antithetic REINFORCE over n samples, negatively correlated through a Dirichlet copula.

    .. math:: g = \frac{1}{n - 1} \sum_i \Big(f(b_i) - \frac1n \sum_j f(b_j)\Big) \frac{b_i - p}{1 - \rho}

    With :math:`d \sim \text{Dirichlet}(1_n)` the :math:`u_i = 1 - (1 - d_i)^{n-1}` are uniform; b_i = 1[u_i > 1 - p], or from
    1 - u_i where p > 1/2. The correlation of two of them is

    .. math:: \rho = \frac{\max(0, 2 m^{1/(n-1)} - 1)^{n-1} - m^2}{m (1 - m)}, \qquad m = \min(p, 1 - p).

    Requires: f's values. Cost: n evaluations of f per sample. When: as :class:`DisARM`, which it is for n = 2, with more
    evaluations.

    Arguments:
        size: n, at least 2, antithetic samples in a tuple.
        num_samples: K, tuples per example.

    Raises:
        InputError: ``size`` is less than 2.

    References:
        Dimitriev & Zhou, *ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables*, 2021.
        https://arxiv.org/abs/2105.14141

    Example:
        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> estimate = dvae.estimators.ARMS(4, num_samples=100_000)(lambda b: b.sum(-1), q)
        >>> estimate.grad.allclose(torch.tensor(0.25), atol=0.02)
        True
    """

    reference = "Dimitriev & Zhou 2021"
    latents = (Bernoulli,)

    def __init__(self, size: int = 4, *, num_samples: int = 1) -> None:
        super().__init__(num_samples)
        if size < 2:
            raise InputError(f"size must be at least 2, got {size}")
        self.size = size
        self.num_noise = self.evaluations_per_sample = size

    def gradient(self, f: Objective, q: Bernoulli, draw: Draw, context: Tensor | None) -> Tensor:
        partners = q.hard(q.relaxed(self.copula(q, draw.noise)))
        b = torch.cat([draw.b[None], partners])
        value = torch.cat([draw.value[None], f(partners)])
        signal = (value - value.mean(0)) / (self.size - 1)
        return q.score(b, signal).sum(0) / (1 - self.correlation(q))

    def copula(self, q: Bernoulli, noise: Tensor) -> Tensor:
        """The other n - 1 uniforms of a tuple whose first is ``noise[0]``, [n - 1, K, B, D]; the rest of the noise is used up."""
        power = self.size - 1
        flipped = q.logits > 0
        first = torch.where(flipped, 1 - noise[0], noise[0])
        # Given d_0, the rest is a Dirichlet of its own, scaled to 1 - d_0 = (1 - u_0)^(1 / (n - 1)).
        exponential = -torch.log1p(-noise[1:])
        share = exponential / exponential.sum(0).clamp(min=torch.finfo(noise.dtype).tiny)
        d = (1 - first) ** (1 / power) * share
        u = 1 - (1 - d) ** power
        return torch.where(flipped, 1 - u, u)

    def correlation(self, q: Bernoulli) -> Tensor:
        """rho, [B, D], in (-1, 0]."""
        power = self.size - 1
        m = torch.sigmoid(-q.logits.abs()).clamp(min=torch.finfo(q.logits.dtype).tiny)
        both = (2 * m ** (1 / power) - 1).clamp(min=0.0) ** power
        return (both / m - m) / (1 - m)
