"""Metrics, on torchmetrics: means with their standard error, active units, and the variance of a model's gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ActiveUnits", "MeanWithError"]


class MeanWithError(Metric):
    """The mean of the values seen so far, and its standard error in :attr:`standard_error`; states are float64 sums.

    ``update(values)`` takes values of any shape, in any unit.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
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
    """How many latents carry information: those whose q(b_d = 1 | x) varies over the data by more than ``threshold``.

    Source: Burda et al. 2016, with the threshold .01 on the variance. ``update(probs)`` takes [B, D].

    Arguments:
        num_latents: D.
        threshold: smallest variance of an active unit.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, num_latents: int, threshold: float = 0.01) -> None:
        super().__init__()
        self.threshold = threshold
        self.add_state("total", default=torch.zeros(num_latents, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.zeros(num_latents, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probs: Tensor) -> None:
        probs = probs.detach().double()
        self.total += probs.sum(0)
        self.squares += probs.square().sum(0)
        self.count += probs.shape[0]

    def compute(self) -> Tensor:
        mean = self.total / self.count
        return (self.squares / self.count - mean.square() > self.threshold).sum()
