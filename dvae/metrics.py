"""Metrics, on torchmetrics: means with their standard error, and active units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ActiveUnits", "MeanWithError"]


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
