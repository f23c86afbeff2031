"""Other relaxations of an order: Plackett-Luce latents with soft ranks from relaxed permutation matrices."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dvae.latents.permutation import PlackettLuce

__all__ = ["NeuralSortPlackettLuce", "SinkhornPlackettLuce"]


class NeuralSortPlackettLuce(PlackettLuce):
    r"""Plackett-Luce latents, relaxed by NeuralSort's matrix; the distribution is that of :class:`PlackettLuce`.

    .. math:: P_{k \cdot} = \text{softmax}_i\Big(\big((n - 1 - 2k) z_i - \sum_j |z_i - z_j|\big) / T\Big), \qquad
        \text{soft}(z, T)_i = \frac{\sum_k k P_{ki}}{\sum_k P_{ki}}

    with places k from 0. Memory is n^2.

    Arguments:
        logits: l, [*, B, n].

    References:
        Grover, Wang, Zweig & Ermon, *Stochastic optimization of sorting networks via continuous relaxations*, 2019.
        https://arxiv.org/abs/1903.08850

    Example:
        >>> q = dvae.latents.NeuralSortPlackettLuce(torch.zeros(3))
        >>> z = torch.tensor([3.0, 0.0, 1.0])
        >>> q.soft(z, 0.1).round(decimals=3), q.hard(z)
        (tensor([0., 2., 1.]), tensor([0., 2., 1.]))
    """

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The expected place of each item under the matrix, its columns divided by their sums; from 0 to n - 1."""
        distances = (z[..., None, :] - z[..., :, None]).abs().sum(-1)
        slopes = z.shape[-1] - 1 - 2 * _places(z)
        scores = (slopes[:, None] * z[..., None, :] - distances[..., None, :]) / temperature
        return _expected_places(scores.log_softmax(-1))


class SinkhornPlackettLuce(PlackettLuce):
    r"""Plackett-Luce latents, relaxed by a doubly stochastic matrix; the distribution is that of :class:`PlackettLuce`.

    .. math:: P = \text{Sinkhorn}\big(-|z_{o_k} - z_i| / T\big), \qquad \text{soft}(z, T)_i = \sum_k k P_{ki}

    Rows and columns are normalised in turns, :attr:`num_iterations` times. The scores are those of SoftSort, whose rows alone are.
    Memory is n^2 for each of the turns.

    Arguments:
        logits: l, [*, B, n].

    References:
        Mena, Belanger, Linderman & Snoek, *Learning latent permutations with Gumbel-Sinkhorn networks*, 2018.
        https://arxiv.org/abs/1802.08665. Prillo & Eisenschlos, *SoftSort*, 2020 (the scores). https://arxiv.org/abs/2006.16038

    Example:
        >>> q = dvae.latents.SinkhornPlackettLuce(torch.zeros(3))
        >>> z = torch.tensor([3.0, 0.0, 1.0])
        >>> q.soft(z, 0.05).round(decimals=3), q.hard(z)
        (tensor([0., 2., 1.]), tensor([0., 2., 1.]))
    """

    num_iterations: ClassVar[int] = 10
    """How often rows and columns are normalised; a subclass may give another number."""

    def soft(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """The expected place of each item under the matrix, from 0 to n - 1."""
        in_order = z.sort(-1, descending=True).values
        log_matrix = -(in_order[..., :, None] - z[..., None, :]).abs() / temperature
        for _ in range(self.num_iterations - 1):
            log_matrix = log_matrix.log_softmax(-1).log_softmax(-2)
        return _expected_places(log_matrix.log_softmax(-1))


def _expected_places(log_matrix: Tensor) -> Tensor:
    """Of each item, under a matrix of places and items whose columns are normalised here."""
    return _places(log_matrix) @ log_matrix.softmax(-2)


def _places(like: Tensor) -> Tensor:
    return torch.arange(like.shape[-1], dtype=like.dtype, device=like.device)
