"""Categorical latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae.errors import InputError
from dvae.latents.base import Discrete, Spec, digits, exponential

__all__ = ["Categorical"]


class Categorical(Discrete):
    r"""D independent variables of C classes per example, one-hot, with :math:`p = \text{softmax}(\text{logits})`.

    .. math:: z_c = \log p_c - \log(-\log u_c), \qquad b = \text{onehot}(\arg\max z), \qquad \text{soft}(z) = \text{softmax}(z / T)

    Arguments:
        logits: [*, B, D, C], of any sum.

    Raises:
        InputError: the logits have fewer than two dimensions.

    References:
        Jang, Gu & Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017. https://arxiv.org/abs/1611.01144

        Maddison, Mnih & Teh, *The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables*, 2017.
        https://arxiv.org/abs/1611.00712

        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, *REBAR: Low-variance, unbiased gradient estimates for discrete latent
        variable models*, 2017 (the relaxed sample given the hard one). https://arxiv.org/abs/1703.07370

    Example:
        >>> q = dvae.latents.Categorical(torch.zeros(5, 3, 10))
        >>> b = q.sample()
        >>> b.shape, b.sum(-1).unique(), q.code(b).shape
        (torch.Size([5, 3, 10]), tensor([1.]), torch.Size([5, 3]))
    """

    event_dim = 2
    sample_dim = 2
    torch_class = torch.distributions.OneHotCategorical

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
        return self.log_probs - torch.log(exponential(u))

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
        e = exponential(v)
        largest = (b * e).sum(-1, keepdim=True)
        # log(e_i / p_i + e_k) in log space, where a small p_i does not overflow; d/dlogits is finite too.
        below = -torch.logaddexp(e.log() - self.log_probs, largest.log())
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

    @classmethod
    def example(cls, num_variables: int) -> Spec:
        return Spec(cls, max(1, num_variables // 2), 3)

    @classmethod
    def extreme_logits(cls, ramp: Tensor, largest: float) -> Tensor:
        return largest * (ramp.flip(-1) / 2)  # within a variable it is the differences that count

    @property
    def num_states(self) -> int:
        num_variables, num_classes = self.logits.shape[-2:]
        return num_classes**num_variables

    def enumerate(self) -> Tensor:
        """All C^D states, one-hot, [C^D, D, C]."""
        num_variables, num_classes = self.logits.shape[-2:]
        states = digits(num_classes, num_variables, self.logits.device)
        return (states[..., None] == torch.arange(num_classes, device=states.device)).to(self.logits.dtype)

    def moves(self, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        change = v - (v * b).sum(-1, keepdim=True)
        return self.probs.expand_as(change), change

    def moved(self, b: Tensor, weight: Tensor) -> Tensor:
        return weight - weight.sum(-1, keepdim=True) * b
