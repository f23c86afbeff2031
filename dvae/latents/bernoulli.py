"""Bernoulli latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae.errors import InputError
from dvae.latents.base import Discrete, digits, open_interval

__all__ = ["Bernoulli"]


class Bernoulli(Discrete):
    r"""D independent Bernoulli variables per example, with :math:`p = \sigma(\text{logits})`.

    .. math:: z = \text{logits} + \text{logit}(u), \qquad b = 1[z > 0], \qquad \text{soft}(z) = \sigma(z / T)

    Arguments:
        logits: [*, B, D].

    Raises:
        InputError: the logits have no dimension of variables.

    References:
        Maddison, Mnih & Teh, *The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables*, 2017 (the relaxed
        sample). https://arxiv.org/abs/1611.00712

        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, *REBAR: Low-variance, unbiased gradient estimates for discrete latent
        variable models*, 2017 (the relaxed sample given the hard one). https://arxiv.org/abs/1703.07370

    Example:
        >>> q = dvae.latents.Bernoulli(torch.tensor([[-1.0, 0.0, 1.0]]))
        >>> z = q.relaxed(torch.full((1, 3), 0.6))
        >>> q.hard(z), q.soft(z, temperature=0.5) > 0.5
        (tensor([[0., 1., 1.]]), tensor([[False,  True,  True]]))
        >>> q.log_prob(q.enumerate()).exp().sum()  # over all 8 states
        tensor(1.)
    """

    binary = True
    torch_class = torch.distributions.Bernoulli

    @classmethod
    def shapes(cls, num_latents: int, num_classes: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if num_classes is not None:
            raise InputError(f"num_classes is for Categorical latents, got {num_classes} for Bernoulli")
        return (num_latents,), (num_latents,)

    @classmethod
    def features(cls, sample: Tensor) -> Tensor:
        """2b - 1."""
        return 2 * sample - 1

    @classmethod
    def code(cls, sample: Tensor) -> Tensor:
        """The bits, uint8."""
        return sample.to(torch.uint8)

    @property
    def probs(self) -> Tensor:
        """Probability that b = 1, [*, B, D]."""
        return torch.sigmoid(self.logits)

    def mode(self) -> Tensor:
        return (self.logits > 0).to(self.logits.dtype)

    def relaxed(self, u: Tensor) -> Tensor:
        """The logistic sample z = logits + logit(u), [*, B, D]."""
        u = open_interval(u)
        return self.logits + u.log() - torch.log1p(-u)

    def hard(self, z: Tensor) -> Tensor:
        """The hard sample b = 1[z > 0], without a gradient."""
        return (z.detach() > 0).to(z.dtype)

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The relaxed sample sigmoid(z / temperature), in (0, 1)."""
        return torch.sigmoid(z / temperature)

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        r"""A relaxed sample given the hard one, :math:`\tilde z \sim p(z | b)`, from uniform noise v.

        .. math::
            \tilde z = \log\frac{1 + v e^l}{1 - v} \text{ where } b = 1, \qquad
            \tilde z = \log\frac{v}{1 + (1 - v) e^{-l}} \text{ where } b = 0, \qquad l = \text{logits}

        the closed form of ``logits + logit(v')``, v' being v scaled to b's side of the threshold (Tucker et al. 2017).
        """
        v = open_interval(v)
        above = F.softplus(self.logits + v.log()) - torch.log1p(-v)
        below = v.log() - F.softplus(torch.log1p(-v) - self.logits)
        return torch.where(b > 0, above, below)

    def path(self, z: Tensor, v: Tensor) -> Tensor:
        r"""The product of ``v`` with the difference of the two reparameterization paths, for coupled noise.

        .. math:: \left(\frac{\partial z}{\partial l} - \frac{\partial \tilde z}{\partial l}\right) v
            = v \cdot \begin{cases} (1 - p) / u & b = 1 \\ p / (1 - u) & b = 0 \end{cases}

        where :math:`\tilde z` is drawn from the uniform that gave z, so that :math:`\tilde z = z` in value and only the derivatives
        differ. Both weights lie in (0, 1]; they are computed in log space, where no probability underflows.

        Arguments:
            z: relaxed sample [*, B, D].
            v: derivative of a control variate at z, [*, B, D].
        """
        sign = torch.where(z > 0, 1.0, -1.0).to(z.dtype)
        logits = sign * self.logits
        return v * torch.exp(F.logsigmoid(-logits) - F.logsigmoid(sign * z - logits))

    def antithetic(self, z: Tensor) -> Tensor:
        """The hard sample of the opposite uniform, 1 - u where z came from u."""
        return self.hard(2 * self.logits - z)

    def mean_gradient(self, v: Tensor, probs: Tensor | None = None) -> Tensor:
        """v p (1 - p), [*, B, D]."""
        return v * (self.probs * torch.sigmoid(-self.logits) if probs is None else probs * (1 - probs))

    def log_prob(self, b: Tensor) -> Tensor:
        """log q(b), [*, B]; at a soft b the same formula, linear in b."""
        return (b * self.logits - F.softplus(self.logits)).sum(-1)

    def _score(self, b: Tensor) -> Tensor:
        return b - self.probs

    def entropy(self) -> Tensor:
        return (F.softplus(self.logits) - self.probs * self.logits).sum(-1)

    def kl(self, other: Bernoulli) -> Tensor:
        difference = self.probs * (self.logits - other.logits)
        return (difference - F.softplus(self.logits) + F.softplus(other.logits)).sum(-1)

    @property
    def num_states(self) -> int:
        return 2 ** self.logits.shape[-1]

    def enumerate(self) -> Tensor:
        """All 2^D states, [2^D, D]."""
        return digits(2, self.logits.shape[-1], self.logits.device).to(self.logits.dtype)

    def moves(self, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        flip = 1 - 2 * b
        return torch.sigmoid(flip * self.logits)[..., None], (v * flip)[..., None]

    def moved(self, b: Tensor, weight: Tensor) -> Tensor:
        return weight[..., 0] * (1 - 2 * b)
