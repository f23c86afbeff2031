"""Metrics, on torchmetrics: means with their standard error, how a code is used, and how alike images are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ActiveUnits", "CodeEntropy", "CodeRate", "MeanWithError", "psnr", "ssim"]

# More values of a symbol are not counted: a table of them for each place would be larger than the data.
_MOST_VALUES = 2**16


class MeanWithError(Metric):
    """The mean of the values seen so far, and its standard error in :attr:`standard_error`; states are float64 sums.

    ``update(values)`` takes values of any shape, in any unit.

    Arguments:
        options: of ``torchmetrics.Metric``, such as ``sync_on_compute``.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("total", "squares", "count"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        values = values.detach().double()
        self.total += values.sum()
        self.squares += values.square().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()

    @property
    def standard_error(self) -> Tensor:
        """Standard deviation of the values over the square root of their number."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0.0)
        return (variance / (self.count - 1).clamp(min=1)).sqrt().float()


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
        return self._entropies.sum()

    @property
    def perplexity(self) -> Tensor:
        """How many values a symbol would have if all in use were equally often, 2^H, the mean over symbols; []."""
        return torch.exp2(self._entropies).mean()

    @property
    def _entropies(self) -> Tensor:
        """In bits, of each symbol."""
        frequencies = self.counts.double() / self.counts.sum(1, keepdim=True)
        return torch.special.entr(frequencies).sum(1) / math.log(2)


def psnr(images: Tensor, others: Tensor, data_range: float) -> Tensor:
    """The peak signal-to-noise ratio of each image in decibels, [B].

    Arguments:
        images, others: [B, ...] of one shape.
        data_range: the largest value less the smallest that there may be.
    """
    error = (images - others).double().square().flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error.clamp(min=1e-10 * data_range**2))


def ssim(images: Tensor, others: Tensor, data_range: float) -> Tensor:
    """The structural similarity of each image, at most 1, [B] (Wang, Bovik, Sheikh & Simoncelli 2004; windows of 11 pixels).

    Arguments:
        images, others: [B, C, H, W], H and W at least 11.
        data_range: the largest value less the smallest that there may be.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(images, others, data_range=data_range, reduction="none")  # type: ignore[return-value]
