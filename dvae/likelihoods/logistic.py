"""Levels of brightness, of which neighbours are alike."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, constraints

from dvae.errors import InputError
from dvae.likelihoods.base import Likelihood, tilt_of

__all__ = ["DiscretizedLogistic"]

# Widths of less than a 30th of a level would be told from each other by rounding alone.
_LEAST_LOG_SCALE = -7.0


class DiscretizedLogistic(Likelihood):
    r"""Levels 0, ..., levels - 1 of images: a logistic distribution's mass around each.

    .. math:: p(x) = \sigma\Big(\frac{x + 1/2 - m}{s}\Big) - \sigma\Big(\frac{x - 1/2 - m}{s}\Big)

    The lowest and the highest level have all of the mass beyond them. The outputs are m and log s of each value, in units of
    half the range around its middle.

    Arguments:
        levels: how many there are, at least 2; 256 of 8-bit images.

    Raises:
        InputError: ``levels`` is less than 2.

    References:
        Salimans, Karpathy, Chen & Kingma, *PixelCNN++: Improving the PixelCNN with discretized logistic mixture likelihood and
        other modifications*, 2017. https://arxiv.org/abs/1701.05517

    Example:
        >>> likelihood = dvae.likelihoods.DiscretizedLogistic()
        >>> levels = torch.arange(256.0)[:, None]
        >>> total = likelihood(torch.tensor([0.2, -1.0])).log_prob(levels).exp().sum()
        >>> round(total.item(), 5)
        1.0
    """

    outputs_per_pixel = 2
    low = 0.0
    whole = True

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        if levels < 2:
            raise InputError(f"levels must be at least 2, got {levels}")
        self.levels = levels
        self.high = levels - 1.0

    def forward(self, outputs: Tensor) -> Distribution:
        location, log_scale = self.split(outputs)
        half = self.high / 2
        return _Logistic(half * (1 + location), log_scale.clamp(min=_LEAST_LOG_SCALE) + math.log(half), self.levels)

    def start(self, mean: Tensor) -> Tensor:
        """The data's mean, at a width of a quarter of half the range."""
        log_scale = torch.full_like(mean, math.log(0.25), dtype=torch.float64)

        def mean_at(location: Tensor) -> Tensor:
            return self(torch.cat([location, log_scale])).mean

        location = tilt_of(mean.double().clamp(0.03 * self.high, 0.97 * self.high), mean_at, largest=4.0)
        return torch.cat([location, log_scale]).to(mean.dtype)

    def features(self, x: Tensor, mean: Tensor) -> Tensor:
        """Centred, and divided by half of the range."""
        return (x - mean) * (2 / self.high)


class _Logistic(Distribution):
    """A logistic distribution, rounded to the levels 0, ..., levels - 1."""

    arg_constraints = {}
    has_enumerate_support = True

    def __init__(self, location: Tensor, log_scale: Tensor, levels: int) -> None:
        self.location, self.log_scale, self.levels = location, log_scale, levels
        super().__init__(location.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        inverse = (-self.log_scale).exp()
        centred = (value - self.location) * inverse
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)): no difference of numbers that are nearly equal.
        above = F.logsigmoid(centred + inverse / 2)
        below = F.logsigmoid(inverse / 2 - centred)
        width = torch.log(-torch.expm1(-inverse))
        lowest, highest = value <= 0, value >= self.levels - 1
        zero = torch.zeros_like(centred)
        return torch.where(highest, zero, above) + torch.where(lowest, zero, below) + torch.where(lowest | highest, zero, width)

    @property
    def mean(self) -> Tensor:
        thresholds = torch.arange(1, self.levels, dtype=self.location.dtype, device=self.location.device) - 0.5
        total = torch.zeros_like(self.location)
        for threshold in thresholds:  # one by one: all at once would be a picture's memory for every level
            total = total + torch.sigmoid((self.location - threshold) * (-self.log_scale).exp())
        return total

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.location.dtype, device=self.location.device).clamp(1e-7, 1 - 1e-7)
        return (self.location + self.log_scale.exp() * torch.logit(u)).round().clamp(0, self.levels - 1).detach()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.arange(self.levels, dtype=self.location.dtype, device=self.location.device)
        values = values.reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values
