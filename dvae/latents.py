r"""Latent distributions, with the relaxations that gradient estimators need.

A latent is drawn through explicit noise: ``u`` uniform on (0, 1) gives the relaxed sample ``z = relaxed(u)``, and its hard sample
is ``b = hard(z)``. So a training step is a pure function of its parameters, its batch and its noise.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae.errors import InputError

__all__ = ["Bernoulli", "Categorical", "Discrete", "Gaussian", "Latent"]


class Latent:
    """D independent variables per example, given by one tensor of parameters: the base of all families.

    Shapes: ``logits`` [*, B, D] or [*, B, D, n], n numbers a variable; samples [*, B, D] or [*, B, D, C].

    Arguments:
        logits: the parameters, as an encoder gives them; half precision is raised to float32, in which noise still resolves.

    Raises:
        InputError: the logits have too few dimensions.
    """

    event_dim: ClassVar[int] = 1
    """How many trailing dimensions of ``logits`` belong to one example."""
    sample_dim: ClassVar[int] = 1
    """How many trailing dimensions of a sample belong to one example."""

    def __init__(self, logits: Tensor) -> None:
        if logits.dim() < self.event_dim:
            raise InputError(
                f"logits must be [{'*, B, D, n' if self.event_dim > 1 else '*, B, D'}], got shape {tuple(logits.shape)}"
            )
        self.logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def __repr__(self) -> str:
        return f"{type(self).__name__}(logits: {tuple(self.logits.shape)})"

    # How a network gives and takes it -----------------------------------------------------------------------------------------

    @classmethod
    def shapes(cls, num_latents: int, num_classes: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of one example's logits and of its sample, from the numbers that a user gives."""
        raise NotImplementedError(f"{cls.__name__} must define shapes(num_latents, num_classes)")

    @classmethod
    def from_flat(cls, flat: Tensor, num_latents: int) -> Any:
        """The distribution whose parameters a network gave as one flat dimension, [*, B, num_latents * n]."""
        return cls(flat if cls.event_dim == 1 else flat.unflatten(-1, (num_latents, -1)))

    @classmethod
    def flat(cls, sample: Tensor) -> Tensor:
        """A sample's (or relaxed sample's) trailing dimensions as one, [*, B, F]."""
        return sample if cls.sample_dim == 1 else sample.flatten(-cls.sample_dim)

    @classmethod
    def features(cls, sample: Tensor) -> Tensor:
        """The sample as a network sees it, flat, [*, B, F]."""
        return cls.flat(sample)

    @classmethod
    def code(cls, sample: Tensor) -> Tensor:
        """The sample as it is stored, one number a variable, [*, B, D]."""
        return sample

    # Sampling -----------------------------------------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> torch.Size:
        """[*, B]: the logits' shape without one example's part."""
        return self.logits.shape[: -self.event_dim]

    def detach(self) -> Any:
        """The same distribution, cut from the graph of its logits."""
        return type(self)(self.logits.detach())

    def noise(self, *sample_shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform noise for :meth:`relaxed`, [*sample_shape, *, B, D] (one number for each of a sample)."""
        shape = (*sample_shape, *self.mode().shape)
        return torch.rand(shape, generator=generator, dtype=self.logits.dtype, device=self.logits.device)

    def relaxed(self, u: Tensor) -> Tensor:
        """The differentiable sample z behind the hard one, from uniform noise u."""
        raise NotImplementedError(f"{type(self).__name__} must define relaxed(u)")

    def hard(self, z: Tensor) -> Tensor:
        """The sample that z stands for, without a gradient."""
        raise NotImplementedError(f"{type(self).__name__} must define hard(z)")

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The sample that f is differentiated at: relaxed at a temperature; z itself for continuous latents."""
        return z

    # Facts --------------------------------------------------------------------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        """E[b], a sample's shape."""
        raise NotImplementedError(f"{type(self).__name__} must define mean")

    def mode(self) -> Tensor:
        """The most probable sample."""
        raise NotImplementedError(f"{type(self).__name__} must define mode()")

    def log_prob(self, b: Tensor) -> Tensor:
        """log q(b), [*, B]."""
        raise NotImplementedError(f"{type(self).__name__} must define log_prob(b)")

    def score(self, b: Tensor, weight: Tensor | None = None) -> Tensor:
        r""":math:`w \, \nabla_{\text{logits}} \log q(b)`, the logits' shape; ``weight`` is [*, B], 1 where it is None."""
        score = self._score(b)
        return score if weight is None else weight[(...,) + (None,) * self.event_dim] * score

    def _score(self, b: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _score(b)")

    def entropy(self) -> Tensor:
        """Entropy in nats, [*, B]."""
        raise NotImplementedError(f"{type(self).__name__} must define entropy()")

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) in nats, [*, B], in closed form."""
        raise NotImplementedError(f"{type(self).__name__} must define kl(other)")


class Discrete(Latent):
    """What estimators for discrete variables need beyond :class:`Latent`: relaxations, enumeration and neighbours."""

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The relaxed sample at a temperature, in the convex hull of the hard ones."""
        raise NotImplementedError(f"{type(self).__name__} must define soft(z, temperature)")

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        r"""A relaxed sample given the hard one, :math:`\tilde z \sim p(z | b)`, from uniform noise v."""
        raise NotImplementedError(f"{type(self).__name__} must define conditional(b, v)")

    def path(self, z: Tensor, v: Tensor) -> Tensor:
        r""":math:`(\partial z / \partial l - \partial \tilde z / \partial l)^\top v` where z~ comes from z's own noise, z~ = z."""
        raise NotImplementedError(f"{type(self).__name__} must define path(z, v)")

    def mean_gradient(self, v: Tensor, probs: Tensor | None = None) -> Tensor:
        r""":math:`(\partial E[b] / \partial \text{logits})^\top v`, the logits' shape, for v of a sample's shape.

        At this distribution's probabilities, or at ``probs``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define mean_gradient(v)")

    @property
    def probs(self) -> Tensor:
        """The probabilities, a sample's shape; also E[b]."""
        raise NotImplementedError(f"{type(self).__name__} must define probs")

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def num_states(self) -> int:
        """How many states one example has."""
        raise NotImplementedError(f"{type(self).__name__} must define num_states")

    def enumerate(self) -> Tensor:
        """All states of one example, [num_states, *sample]."""
        raise NotImplementedError(f"{type(self).__name__} must define enumerate()")

    def moves(self, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Each variable's moves from b to its other values: their probabilities, and :math:`v \cdot \text{displacement}`.

        Both [*, B, D, n]; v is of a sample's shape. A move from b_i to c has probability q(b_i = c).
        """
        raise NotImplementedError(f"{type(self).__name__} must define moves(b, v)")

    def moved(self, b: Tensor, weight: Tensor) -> Tensor:
        """The displacements of :meth:`moves`, weighted with [*, B, D, n] and added up for each variable; a sample's shape."""
        raise NotImplementedError(f"{type(self).__name__} must define moved(b, weight)")


class Bernoulli(Discrete):
    r"""D independent Bernoulli variables per example, with :math:`p = \sigma(\text{logits})`.

    .. math:: z = \text{logits} + \text{logit}(u), \qquad b = 1[z > 0], \qquad \text{soft}(z) = \sigma(z / T)

    Source: Maddison et al. 2017 (relaxation), Tucker et al. 2017 (conditional relaxation).

    Arguments:
        logits: [*, B, D].

    Raises:
        InputError: the logits have no dimension of variables.

    >>> q = Bernoulli(torch.zeros(5, 3))
    >>> q.hard(q.relaxed(q.noise())).shape
    torch.Size([5, 3])
    """

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
        return _digits(2, self.logits.shape[-1], self.logits.device).to(self.logits.dtype)

    def moves(self, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        flip = 1 - 2 * b
        return torch.sigmoid(flip * self.logits)[..., None], (v * flip)[..., None]

    def moved(self, b: Tensor, weight: Tensor) -> Tensor:
        return weight[..., 0] * (1 - 2 * b)


class Categorical(Discrete):
    r"""D independent variables of C classes per example, one-hot, with :math:`p = \text{softmax}(\text{logits})`.

    .. math:: z_c = \log p_c - \log(-\log u_c), \qquad b = \text{onehot}(\arg\max z), \qquad \text{soft}(z) = \text{softmax}(z / T)

    Source: Jang et al. 2017, Maddison et al. 2017 (relaxation), Tucker et al. 2017 (conditional relaxation).

    Arguments:
        logits: [*, B, D, C], of any sum.

    Raises:
        InputError: the logits have fewer than two dimensions.

    >>> q = Categorical(torch.zeros(5, 3, 10))
    >>> q.hard(q.relaxed(q.noise())).sum(-1).unique()
    tensor([1.])
    """

    event_dim = 2
    sample_dim = 2

    @classmethod
    def shapes(cls, num_latents: int, num_classes: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if num_classes is None or num_classes < 2:
            raise InputError(f"num_classes must be at least 2 for Categorical latents, got {num_classes}")
        return (num_latents, num_classes), (num_latents, num_classes)

    @classmethod
    def features(cls, sample: Tensor) -> Tensor:
        """2b - 1 of the one-hot sample, flat."""
        return 2 * cls.flat(sample) - 1

    @classmethod
    def code(cls, sample: Tensor) -> Tensor:
        """The classes, uint8 (int64 where there are more than 256)."""
        return sample.argmax(-1).to(torch.uint8 if sample.shape[-1] <= 256 else torch.int64)

    @property
    def log_probs(self) -> Tensor:
        """log p, [*, B, D, C]."""
        return F.log_softmax(self.logits, -1)

    @property
    def probs(self) -> Tensor:
        """p, [*, B, D, C]."""
        return F.softmax(self.logits, -1)

    def mode(self) -> Tensor:
        return self.hard(self.logits)

    def relaxed(self, u: Tensor) -> Tensor:
        """The Gumbel sample z = log p + Gumbel(u), [*, B, D, C]."""
        return self.log_probs - torch.log(_exponential(u))

    def hard(self, z: Tensor) -> Tensor:
        """The one-hot sample of the largest z, without a gradient."""
        # A comparison with indices where F.one_hot would do: that has no batching rule for vmap.
        classes = torch.arange(z.shape[-1], device=z.device)
        return (z.detach().argmax(-1, keepdim=True) == classes).to(z.dtype)

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The relaxed sample softmax(z / temperature), in the simplex."""
        return F.softmax(z / temperature, -1)

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        r"""A relaxed sample given the hard one, :math:`\tilde z \sim p(z | b)`, from uniform noise v.

        .. math::
            \tilde z_k = -\log(-\log v_k), \qquad
            \tilde z_i = -\log\left(\frac{-\log v_i}{p_i} - \log v_k\right) \text{ for } i \ne k

        where k is b's class: the maximum is Gumbel(0) whatever k, and the others are Gumbel(log p_i) cut off at it
        (Tucker et al. 2017).
        """
        exponential = _exponential(v)
        largest = (b * exponential).sum(-1, keepdim=True)
        # log(e_i / p_i + e_k) in log space, where a small p_i does not overflow; d/dlogits is finite too.
        below = -torch.logaddexp(exponential.log() - self.log_probs, largest.log())
        return torch.where(b > 0, -largest.log(), below)

    def path(self, z: Tensor, v: Tensor) -> Tensor:
        r"""The product of ``v`` with the difference of the two reparameterization paths, for coupled noise.

        .. math:: h_i = v_i e^{z_i - z_k}, \qquad
            \left(\frac{\partial z}{\partial l} - \frac{\partial \tilde z}{\partial l}\right)^\top v = h - p \sum_i h_i,
            \qquad k = \arg\max z

        Derivation. Let m = log p, so that dz/dm = 1. The conditional sample is the maximum, whose value does not depend on m, and
        below it :math:`e^{-\tilde z_i} = e^{-m_i} \epsilon_i + e^{-\tilde z_k}` with :math:`\epsilon_i = -\log v_i` fixed:
        :math:`\partial \tilde z_i / \partial m_i = e^{-m_i} \epsilon_i / e^{-\tilde z_i} = 1 - e^{\tilde z_i - \tilde z_k}` for
        i != k, and 0 for i = k, which is the same expression there. Coupled, z~ = z in value, so the difference with respect to m
        is diag(e^{z_i - z_k}). The logits enter through m = l - logsumexp(l), whose transposed derivative takes h to h - p sum(h).

        Arguments:
            z: relaxed sample [*, B, D, C].
            v: derivative of a control variate at z, [*, B, D, C].
        """
        h = v * torch.exp(z - z.amax(-1, keepdim=True))
        return h - self.probs * h.sum(-1, keepdim=True)

    def mean_gradient(self, v: Tensor, probs: Tensor | None = None) -> Tensor:
        """p (v - sum(p v)), [*, B, D, C]."""
        probs = self.probs if probs is None else probs
        return probs * (v - (probs * v).sum(-1, keepdim=True))

    def log_prob(self, b: Tensor) -> Tensor:
        """log q(b), [*, B]; at a soft b the same formula, linear in b."""
        return (b * self.log_probs).sum((-2, -1))

    def _score(self, b: Tensor) -> Tensor:
        return b - self.probs

    def entropy(self) -> Tensor:
        return -(self.probs * self.log_probs).sum((-2, -1))

    def kl(self, other: Categorical) -> Tensor:
        return (self.probs * (self.log_probs - other.log_probs)).sum((-2, -1))

    @property
    def num_states(self) -> int:
        num_variables, num_classes = self.logits.shape[-2:]
        return num_classes**num_variables

    def enumerate(self) -> Tensor:
        """All C^D states, one-hot, [C^D, D, C]."""
        num_variables, num_classes = self.logits.shape[-2:]
        states = _digits(num_classes, num_variables, self.logits.device)
        return (states[..., None] == torch.arange(num_classes, device=states.device)).to(self.logits.dtype)

    def moves(self, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        change = v - (v * b).sum(-1, keepdim=True)
        return self.probs.expand_as(change), change

    def moved(self, b: Tensor, weight: Tensor) -> Tensor:
        return weight - weight.sum(-1, keepdim=True) * b


class Gaussian(Latent):
    r"""D independent normal variables per example; continuous, for the reparameterized estimators.

    .. math:: b = z = \mu + \sigma \Phi^{-1}(u), \qquad \text{logits} = (\mu, \log \sigma)

    Source: Kingma & Welling 2014.

    Arguments:
        logits: [*, B, D, 2], the mean and the logarithm of the standard deviation of each variable. (All families call the
            encoder's output logits.)

    Raises:
        InputError: the logits have fewer than two dimensions, or the last is not 2.

    >>> Gaussian(torch.zeros(5, 3, 2)).mean.shape
    torch.Size([5, 3])
    """

    event_dim = 2

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits)
        if logits.shape[-1] != 2:
            raise InputError(f"logits must be [*, B, D, 2], mean and log standard deviation, got shape {tuple(logits.shape)}")

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
        return self.mean + self.log_std.exp() * torch.special.ndtri(_open_interval(u))

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

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: Gaussian) -> Tensor:
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        distance = other.standardized(self.mean).square()
        return (0.5 * (ratio + distance - 1) + other.log_std - self.log_std).sum(-1)


def _open_interval(u: Tensor) -> Tensor:
    # torch.rand can return 0, whose logit is infinite; 1 - eps/2 is the largest number below 1.
    info = torch.finfo(u.dtype)
    return u.clamp(info.tiny, 1 - info.eps / 2)


def _digits(base: int, length: int, device: torch.device) -> Tensor:
    """All numbers of so many digits, [base^length, length]."""
    place = base ** torch.arange(length - 1, -1, -1, device=device)
    return torch.arange(base**length, device=device)[:, None] // place % base


def _exponential(u: Tensor) -> Tensor:
    """-log(u), a standard exponential variable: e^-Gumbel."""
    return -torch.log(_open_interval(u))
