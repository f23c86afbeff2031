"""Permutations."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.latents.base import Discrete, Spec, exponential
from dvae.latents.recurrences import after_one, finite_log, log_running_sums, running_sums

__all__ = ["PlackettLuce", "permutation_matrix"]


def permutation_matrix(ranks: Tensor) -> Tensor:
    r"""The matrix of an order, which puts items in their places; at soft ranks each item is shared by the two places nearest.

    .. math:: P_{ki} = \max(0, 1 - |b_i - k|)

    Arguments:
        ranks: hard or soft, from 0 to n - 1, [*, n].

    Returns:
        [*, n, n], a column for each item, which sums to 1.

    Example:
        >>> items = torch.tensor([10.0, 20.0, 30.0])
        >>> dvae.latents.permutation_matrix(torch.tensor([2.0, 0.0, 1.0])) @ items
        tensor([20., 30., 10.])
        >>> dvae.latents.permutation_matrix(torch.tensor([1.5, 0.0, 1.5])) @ items
        tensor([20., 20., 20.])
    """
    places = torch.arange(ranks.shape[-1], dtype=ranks.dtype, device=ranks.device)
    return (1 - (ranks[..., None, :] - places[:, None]).abs()).clamp(min=0)


class PlackettLuce(Discrete):
    r"""A random order of n items: drawn one after the other, without replacement, in proportion to :math:`e^{l_i}`.

    .. math:: \log q(b) = \sum_k l_{o_k} - \log S_k, \qquad S_k = \sum_{j \geq k} e^{l_{o_j}}, \qquad
        z_i = l_i - \log(-\log u_i), \qquad o = \text{argsort}(-z)

    A sample is the vector of ranks, b_i = 0 for the item that comes first, so that noise, z and b have one shape;
    :func:`permutation_matrix` makes a matrix of it. Entropy and KL have no closed form: models take ``kl="sampled"``.
    :class:`NeuralSortPlackettLuce` and :class:`SinkhornPlackettLuce` are the same distribution with other soft ranks.

    Arguments:
        logits: l, [*, B, n], of any sum.

    Raises:
        InputError: the logits have no dimension of items.

    References:
        Plackett, *The analysis of permutations*, 1975. Gadetsky, Struminsky, Robinson, Quadrianto & Vetrov, *Low-variance black-box
        gradient estimates for the Plackett-Luce distribution*, 2020 (the relaxed sample given the order).
        https://arxiv.org/abs/1911.10036

    Example:
        >>> q = dvae.latents.PlackettLuce(torch.tensor([[3.0, 0.0, 1.0]]))
        >>> q.mode()  # the first item first, then the third, then the second
        tensor([[0., 2., 1.]])
        >>> round(q.log_prob(q.enumerate()).exp().sum().item(), 5)  # over all 6 orders
        1.0
    """

    closed_kl = False

    @classmethod
    def shapes(cls, num_latents: int, num_classes: int | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if num_classes is not None:
            raise InputError(f"num_classes is for Categorical latents, got {num_classes} for PlackettLuce")
        return (num_latents,), (num_latents,)

    @classmethod
    def features(cls, sample: Tensor) -> Tensor:
        """The ranks from -1, of the first, to 1."""
        return 2 * sample / max(1, sample.shape[-1] - 1) - 1

    @classmethod
    def code(cls, sample: Tensor) -> Tensor:
        """The ranks, uint8 (int64 where there are more than 256 items)."""
        return sample.to(torch.uint8 if sample.shape[-1] <= 256 else torch.int64)

    @classmethod
    def require_code(cls, code: Tensor) -> None:
        """An InputError where numbers [*, D] are no ranks."""
        if not bool((code.sort(-1).values == torch.arange(code.shape[-1], device=code.device)).all()):
            raise InputError(f"codes must be ranks, each of 0 to {code.shape[-1] - 1} once, got others among them")

    # Sampling

    def relaxed(self, u: Tensor) -> Tensor:
        """The Gumbel sample z = l + Gumbel(u), [*, B, n]."""
        return self.logits - torch.log(exponential(u))

    def hard(self, z: Tensor) -> Tensor:
        """The ranks of z, the largest first, without a gradient."""
        return z.detach().argsort(-1, descending=True).argsort(-1).to(z.dtype)

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        r"""Soft ranks, :math:`\sum_{j \neq i} \sigma((z_j - z_i) / T)`, from 0 to n - 1 (Qin, Liu & Li 2010).

        All pairs of items are compared, in memory of n^2.
        """
        return _expected_ranks(z / temperature)

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        r"""A relaxed sample given the order, :math:`\tilde z \sim p(z | b)`, from uniform noise v.

        .. math:: e^{-\tilde z_{o_k}} = \sum_{j \leq k} E_j / S_j, \qquad E_j = -\log v_{o_j}

        Of exponential variables of rates p_i the waiting times between one and the next are independent, of rate S_j
        (Gadetsky et al. 2020).
        """
        order = b.argsort(-1)
        log_steps = torch.log(exponential(v.gather(-1, order))) - _log_rest(self._in(order))
        return -_back(log_running_sums(log_steps), b)

    def path(self, z: Tensor, v: Tensor) -> Tensor:
        r"""The product of ``v`` with the difference of the two reparameterization paths, for coupled noise.

        .. math:: v_m - e^{l_m} \sum_{j \leq \text{rank}(m)} \frac{T_{o_j} - T_{o_{j-1}}}{S_j}
            \sum_{i: \text{rank}(i) \geq j} \frac{v_i}{T_i}, \qquad T = e^{-z}

        Derivation. dz/dl = 1. In :math:`\tilde T_{o_k} = \sum_{j \leq k} E_j / S_j` the E_j are fixed, and coupled
        :math:`E_j = (T_{o_j} - T_{o_{j-1}}) S_j`, so that
        :math:`\partial \tilde T_{o_k} / \partial l_m = -\sum_j (T_{o_j} - T_{o_{j-1}}) e^{l_m} / S_j` over j up to k and to m's
        rank, and :math:`\partial \tilde z_i = -\partial \tilde T_i / T_i`. The sum over i of rank at least j is taken first,
        in units of 1 / T_j, and that over j in units of 1 / S_k: both are then recurrences with factors up to 1, which cannot
        overflow whatever the logits.

        Arguments:
            z: relaxed sample [*, B, n].
            v: derivative of a control variate at z, [*, B, n].
        """
        ranks = self.hard(z)
        order = ranks.argsort(-1)
        logits, in_order = self._in(order), z.gather(-1, order)
        log_rest = _log_rest(logits)
        ratios = after_one(torch.exp(in_order.diff()))  # T of the item before, over T
        later = running_sums(v.gather(-1, order).flip(-1), after_one(ratios[..., 1:].flip(-1))).flip(-1)
        steps = torch.cat([later[..., :1], (1 - ratios[..., 1:]) * later[..., 1:]], -1)
        summed = running_sums(steps, after_one(torch.exp(log_rest.diff())))
        return v - _back(torch.exp(logits - log_rest) * summed, ranks)

    # Facts

    @property
    def probs(self) -> Tensor:
        raise InputError("PlackettLuce has no probabilities of single variables: an order is drawn as a whole")

    @property
    def mean(self) -> Tensor:
        r"""The expected ranks, :math:`\sum_{j \neq i} p_j / (p_i + p_j)`."""
        return _expected_ranks(self.logits)

    def mode(self) -> Tensor:
        return self.hard(self.logits)

    def log_prob(self, b: Tensor) -> Tensor:
        r"""log q(b), [*, B]; at soft ranks a continuous function that is exact at the hard ones.

        .. math:: \sum_k l_{o_k} - \log S'_k, \qquad S'_{k+1} = g_k S_{k+1} + (1 - g_k) S'_k, \qquad
            g_k = \min(1, b_{o_{k+1}} - b_{o_k})

        Where two items' soft ranks meet, both are drawn from what is left before either is gone. With S itself the order would jump
        there, where a control variate is differentiated, and the gradient be biased.
        """
        order = b.argsort(-1)
        logits = self._in(order)
        log_rest = _log_rest(logits)
        gaps = b.gather(-1, order).diff().clamp(max=1)
        own = torch.cat([log_rest[..., :1], log_rest[..., 1:] + finite_log(gaps)], -1)
        return (logits - log_running_sums(own, after_one(finite_log(1 - gaps)))).sum(-1)

    def _score(self, b: Tensor) -> Tensor:
        order = b.argsort(-1)
        logits = self._in(order)
        drawn = torch.exp(logits + log_running_sums(-_log_rest(logits)))
        return 1 - _back(drawn, b)

    def entropy(self) -> Tensor:
        raise InputError(f"{type(self).__name__} has no entropy in closed form: average -log_prob(sample()) instead")

    def kl(self, other: PlackettLuce) -> Tensor:
        raise InputError(
            f"{type(self).__name__} has no KL in closed form: average log_prob(b) - other.log_prob(b) over samples instead"
        )

    @classmethod
    def example(cls, num_variables: int) -> Spec:
        return Spec(cls, next(n for n in itertools.count(2) if math.factorial(n) >= 2**num_variables))

    @property
    def num_states(self) -> int:
        return math.factorial(self.logits.shape[-1])

    def enumerate(self) -> Tensor:
        """All n! orders as ranks, [n!, n], those of a smaller first rank first."""
        ranks = torch.zeros(1, 0, dtype=self.logits.dtype, device=self.logits.device)
        for taken in range(self.logits.shape[-1]):
            # A new first item of each rank, from which on the others' ranks are one more.
            first = torch.arange(taken + 1, dtype=ranks.dtype, device=ranks.device)[:, None, None].expand(-1, len(ranks), 1)
            ranks = torch.cat([first, ranks + (ranks >= first)], -1).flatten(0, 1)
        return ranks

    def _in(self, order: Tensor) -> Tensor:
        """The logits in an order of items, [*, B, n]."""
        logits, order = torch.broadcast_tensors(self.logits, order)
        return logits.gather(-1, order)


def _expected_ranks(logits: Tensor) -> Tensor:
    above = torch.sigmoid(logits[..., None, :] - logits[..., :, None])
    return above.sum(-1) - 0.5  # less the item itself


def _log_rest(logits: Tensor) -> Tensor:
    """log S_k of logits in the order drawn: what is left when k items are gone."""
    return log_running_sums(logits.flip(-1)).flip(-1)


def _back(in_order: Tensor, ranks: Tensor) -> Tensor:
    """What stands in the order drawn, for each item."""
    in_order, places = torch.broadcast_tensors(in_order, ranks.long())
    return in_order.gather(-1, places)
