"""Recurrences along the last dimension by doubling: O(n log n), with finite derivatives of any order.

Those of second order of ``torch.logcumsumexp`` and ``torch.logaddexp`` are not: they take the logarithm of a gradient, which may be
0, or divide infinity by infinity.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["after_one", "finite_log", "log_running_sums", "running_sums"]


def running_sums(x: Tensor, factors: Tensor) -> Tensor:
    """y_k = x_k + factors_k y_{k-1}; the first factor does not count."""
    shift = 1
    while shift < x.shape[-1]:
        x = torch.cat([x[..., :shift], x[..., shift:] + factors[..., shift:] * x[..., :-shift]], -1)
        factors = torch.cat([factors[..., :shift], factors[..., shift:] * factors[..., :-shift]], -1)
        shift *= 2
    return x


def log_running_sums(x: Tensor, factors: Tensor | None = None) -> Tensor:
    """The same of logarithms; factors of 1 where they are None."""
    shift = 1
    while shift < x.shape[-1]:
        before = x[..., :-shift] if factors is None else x[..., :-shift] + factors[..., shift:]
        x = torch.cat([x[..., :shift], _log_add(x[..., shift:], before)], -1)
        if factors is not None:
            factors = torch.cat([factors[..., :shift], factors[..., shift:] + factors[..., :-shift]], -1)
        shift *= 2
    return x


def _log_add(x: Tensor, y: Tensor) -> Tensor:
    largest = torch.maximum(x, y).detach()
    return largest + torch.log(torch.exp(x - largest) + torch.exp(y - largest))


def after_one(factors: Tensor) -> Tensor:
    """Factors between neighbours, [*, n - 1], as those of a recurrence, [*, n]."""
    return torch.nn.functional.pad(factors, (1, 0))


def finite_log(p: Tensor) -> Tensor:
    """log p, and a finite number for that of 0, whose derivative is 0."""
    positive = p > 0
    return torch.where(positive, torch.log(torch.where(positive, p, 1.0)), -1e30)
