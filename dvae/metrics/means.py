"""A mean with its standard error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["MeanWithError"]


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
