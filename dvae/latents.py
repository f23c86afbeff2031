r"""Discrete latent distributions, with the relaxations that gradient estimators need.

A latent is drawn through explicit noise: ``u`` uniform on (0, 1) gives the relaxed sample ``z = relaxed(u)``, and its hard sample
is ``b = hard(z)``. So a training step is a pure function of its parameters, its batch and its noise.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae.errors import InputError

__all__ = ["Bernoulli"]


class Bernoulli:
    r"""D independent Bernoulli variables per example, with :math:`p = \sigma(\text{logits})`.

    .. math:: z = \text{logits} + \text{logit}(u), \qquad b = 1[z > 0], \qquad \text{soft}(z) = \sigma(z / T)

    Source: Maddison et al. 2017 (relaxation), Tucker et al. 2017 (conditional relaxation).

    Arguments:
        logits: [*, B, D]; half-precision logits are raised to float32, in which noise still resolves.

    Raises:
        InputError: the logits have no event dimension.

    >>> q = Bernoulli(torch.zeros(5, 3))
    >>> q.hard(q.relaxed(q.noise())).shape
    torch.Size([5, 3])
    """

    event_dim = 1
    """How many trailing dimensions make one event: samples and gradients are summed over these."""

    def __init__(self, logits: Tensor) -> None:
        if logits.dim() < 1:
            raise InputError(f"logits must have a last dimension of variables, got shape {tuple(logits.shape)}")
        self.logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def __repr__(self) -> str:
        return f"Bernoulli(logits: {tuple(self.logits.shape)})"

    @property
    def probs(self) -> Tensor:
        """Probability that b = 1, [*, B, D]."""
        return torch.sigmoid(self.logits)

    def detach(self) -> Bernoulli:
        """The same distribution, cut from the graph of its logits."""
        return Bernoulli(self.logits.detach())

    def noise(self, *sample_shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform noise [*sample_shape, *logits.shape] for :meth:`relaxed`."""
        shape = (*sample_shape, *self.logits.shape)
        return torch.rand(shape, generator=generator, dtype=self.logits.dtype, device=self.logits.device)

    def relaxed(self, u: Tensor) -> Tensor:
        """The logistic sample z = logits + logit(u), [*, B, D]."""
        u = _open_interval(u)
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
        v = _open_interval(v)
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

    def log_prob(self, b: Tensor) -> Tensor:
        """log q(b), [*, B]; at a soft b the same formula, linear in b."""
        return (b * self.logits - F.softplus(self.logits)).sum(-1)

    def score(self, b: Tensor) -> Tensor:
        """d log q(b) / d logits = b - p, [*, B, D]."""
        return b - self.probs

    def entropy(self) -> Tensor:
        """Entropy in nats, [*, B]."""
        return (F.softplus(self.logits) - self.probs * self.logits).sum(-1)

    def kl(self, other: Bernoulli) -> Tensor:
        """KL(self || other) in nats, [*, B], in closed form."""
        difference = self.probs * (self.logits - other.logits)
        return (difference - F.softplus(self.logits) + F.softplus(other.logits)).sum(-1)

    def enumerate(self) -> Tensor:
        """All 2^D states, [2^D, D]; meant for D up to about 15."""
        num_variables = self.logits.shape[-1]
        states = list(itertools.product((0.0, 1.0), repeat=num_variables))
        return torch.tensor(states, dtype=self.logits.dtype, device=self.logits.device)


def _open_interval(u: Tensor) -> Tensor:
    # torch.rand can return 0, whose logit is infinite; 1 - eps/2 is the largest number below 1.
    info = torch.finfo(u.dtype)
    return u.clamp(info.tiny, 1 - info.eps / 2)
