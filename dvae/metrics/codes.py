"""How a code is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dvae.errors import InputError

__all__ = ["ActiveUnits", "BitInformation", "CodeEntropy", "CodeRate", "CodeUsage"]

# More values of a symbol are not counted: a table of them for each place would be larger than the data.
_MOST_VALUES = 2**16


class ActiveUnits(Metric):
    """How many latents carry information: those whose mean under q(b | x) varies over the data by more than ``threshold``.

    Source: Burda et al. 2016, with the threshold .01 on the variance (for categorical latents, the sum over classes).
    ``update(mean)`` takes [B, *shape].

    Arguments:
        shape: of one example's mean: [D], or [D, C].
        threshold: smallest variance of an active unit.
        options: of ``torchmetrics.Metric``, such as ``sync_on_compute``.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, shape: Sequence[int], threshold: float = 0.01, **options: Any) -> None:
        super().__init__(**options)
        self.threshold = threshold
        self.add_state("total", default=torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        mean = mean.detach().double()
        self.total += mean.sum(0)
        self.squares += mean.square().sum(0)
        self.count += mean.shape[0]

    def compute(self) -> Tensor:
        variance = self.squares / self.count - (self.total / self.count).square()
        return (variance.reshape(variance.shape[0], -1).sum(1) > self.threshold).sum()


class CodeEntropy(Metric):
    r"""How much of each latent's range a data set uses: the entropy in bits of its mean distribution over the data, [D].

    (torchmetrics makes [] of [1].)

    .. math:: H_d = -\sum_c \bar p_{dc} \log_2 \bar p_{dc}, \qquad \bar p = E_x[q(b | x)]

    1 is all of a bit, and log_2 C all of C classes. :attr:`perplexity` says the same as a number of values, as for codebooks (van
    den Oord et al. 2017). ``update(mean)`` takes E[b] under q(b | x), [N, *shape]; of a code on a grid each place may count for
    itself, [B H' W', D].

    Arguments:
        shape: of the mean: [D] of bits, or [D, C] of classes.
        options: of ``torchmetrics.Metric``, such as ``sync_on_compute``.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, shape: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.shape = tuple(shape)
        self.add_state("total", default=torch.zeros(self.shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        mean = mean.detach().double().reshape(-1, *self.shape)
        self.total += mean.sum(0)
        self.count += mean.shape[0]

    def compute(self) -> Tensor:
        mean = self.total / self.count
        probs = torch.stack([mean, 1 - mean], -1) if len(self.shape) == 1 else mean
        return torch.special.entr(probs).sum(-1).float() / math.log(2)

    @property
    def perplexity(self) -> Tensor:
        """How many values of each latent would be used if all were equally often, 2^H, [D]."""
        return torch.exp2(self.compute())


class CodeUsage(Metric):
    """The share of each latent's values that are the most probable one of some example, [D]: 1 where every value is used.

    (torchmetrics makes [] of [1].) Of a codebook of C words, ``CodeUsage([1, C])`` is the share of words in use. ``update(mean)``
    takes what :class:`CodeEntropy` takes, or codes themselves, integers [N, D].

    Arguments:
        shape: of the mean: [D] of bits, or [D, C] of classes.
        options: of ``torchmetrics.Metric``, such as ``sync_on_compute``.

    Example:
        >>> usage = dvae.metrics.CodeUsage([2])
        >>> usage.update(torch.tensor([[0.1, 0.9], [0.8, 0.7]]))
        >>> usage.compute()
        tensor([1.0000, 0.5000])
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, shape: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.shape = tuple(shape)
        num_values = 2 if len(self.shape) == 1 else self.shape[1]
        self.add_state("counts", default=torch.zeros(self.shape[0], num_values, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        if not mean.is_floating_point():
            values = mean.long().reshape(-1, self.shape[0])
        else:
            mean = mean.detach().reshape(-1, *self.shape)
            values = (mean > 0.5).long() if len(self.shape) == 1 else mean.argmax(-1)
        self.counts.scatter_add_(1, values.T, torch.ones_like(values.T))

    def compute(self) -> Tensor:
        return (self.counts > 0).float().mean(1)


class BitInformation(Metric):
    r"""The mutual information of every two bits of a code over a data set, in bits, [D, D]; on the diagonal each bit's entropy.

    .. math:: I(b_i; b_j) = \sum_{u, v \in \{0, 1\}} p_{ij}(u, v) \log_2 \frac{p_{ij}(u, v)}{p_i(u) \, p_j(v)},
        \qquad p_{ij} = E_x[q(b_i | x) \, q(b_j | x)]

    0 off the diagonal is a code whose bits say different things. Of N examples independent bits measure about 0.72 / N, not 0.
    ``update(mean)`` takes E[b] under q(b | x), [N, D], or bits themselves; of a code on a grid each place may count for itself,
    [B H' W', D]. Source: Cover & Thomas 2006, section 2.3.

    Arguments:
        num_bits: D.
        options: of ``torchmetrics.Metric``, such as ``sync_on_compute``.

    Raises:
        InputError: there is no bit.

    Example:
        >>> information = dvae.metrics.BitInformation(3)
        >>> information.update(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))
        >>> information.compute()
        tensor([[1., 1., 0.],
                [1., 1., 0.],
                [0., 0., 1.]])
        >>> information.between_bits
        tensor(0.3333)
    """

    full_state_update = False
    pairs: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, num_bits: int, **options: Any) -> None:
        super().__init__(**options)
        if num_bits < 1:
            raise InputError(f"num_bits must be at least 1, got {num_bits}")
        self.num_bits = num_bits
        self.add_state("pairs", default=torch.zeros(num_bits, num_bits, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", default=torch.zeros(num_bits, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        mean = mean.detach().double().reshape(-1, self.num_bits)
        self.pairs += mean.T @ mean
        self.total += mean.sum(0)
        self.count += mean.shape[0]

    def compute(self) -> Tensor:
        on = self.total / self.count
        both = self.pairs / self.count
        both.diagonal().copy_(on)  # a bit and itself are equal, whatever the mean
        joint = torch.stack([both, on[:, None] - both, on - both, 1 - on[:, None] - on + both]).clamp(min=0)
        entropy = torch.special.entr(on) + torch.special.entr(1 - on)
        information = entropy[:, None] + entropy - torch.special.entr(joint).sum(0)
        return (information / math.log(2)).clamp(min=0).float()

    @property
    def between_bits(self) -> Tensor:
        """The mean over all pairs of different bits, []; not a number of a single bit."""
        information = self.compute()
        return (information.sum() - information.trace()) / (self.num_bits * (self.num_bits - 1))


class CodeRate(Metric):
    r"""How many bits the codes of a data set take, if each symbol were coded by itself: the sum of the symbols' entropies.

    .. math:: R = -\sum_s \sum_v \bar p_{sv} \log_2 \bar p_{sv}

    with the frequencies :math:`\bar p` of the values in the codes that were seen. A symbol is what is at one place of the grid, all
    of its latents together, or one latent where there is no grid or a place has more than 65,536 values. It is an upper bound on
    the joint entropy, for what symbols tell of each other is left out, and biased down by about (V - 1) / (2 N ln 2) bits a
    symbol of V values in N examples. :attr:`perplexity` is the mean number of values in use, 2^H. ``update(code)`` takes
    whole numbers [N, D].

    Arguments:
        num_latents: D.
        num_values: how many values a latent has.
        per_symbol: latents of a symbol, which follow each other.
        options: of ``torchmetrics.Metric``, such as ``sync_on_compute``.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_latents: int, num_values: int, per_symbol: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.together = per_symbol if num_values**per_symbol <= _MOST_VALUES else 1
        self.values = num_values
        shape = (num_latents // self.together, num_values**self.together)
        self.add_state("counts", default=torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, code: Tensor) -> None:
        weights = self.values ** torch.arange(self.together - 1, -1, -1, device=code.device)
        symbols = (code.long().unflatten(-1, (-1, self.together)) * weights).sum(-1)
        self.counts.scatter_add_(1, symbols.T, torch.ones_like(symbols.T))

    def compute(self) -> Tensor:
        return self.entropies.sum()

    @property
    def perplexity(self) -> Tensor:
        """How many values a symbol would have if all in use were equally often, 2^H, the mean over symbols; []."""
        return torch.exp2(self.entropies).mean()

    @property
    def entropies(self) -> Tensor:
        """In bits, of each symbol."""
        frequencies = self.counts.double() / self.counts.sum(1, keepdim=True)
        return torch.special.entr(frequencies).sum(1) / math.log(2)
