"""Real values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal as NormalDistribution

from dvae.errors import InputError
from dvae.likelihoods.base import Likelihood

__all__ = ["Normal"]

# Between e^-6 and e^6 standard deviations of the data: a constant column has a density without a bound.
_LARGEST_LOG_SCALE = 6.0


class Normal(Likelihood):
    r"""Independent real values, of any unit: it keeps the training set's mean and standard deviation, and works in units of these.

    .. math:: p(x) = \prod_d N(x_d; \; \mu_d + \sigma_d m_d, \; (\sigma_d s_d)^2)

    The outputs are m and log s; mu and sigma, from the data, are part of the checkpoint, and the encoder sees (x - mu) / sigma. It
    is a density in the data's own units: of levels or counts the ELBO has no upper bound, and is not comparable with a discrete
    one's.

    Arguments:
        scale: s, in standard deviations of the data, where it is not to be learned; the outputs are then m alone.

    Raises:
        InputError: ``scale`` is not positive.

    Example:
        >>> likelihood = dvae.likelihoods.Normal(scale=1.0)
        >>> likelihood.build(2)
        >>> likelihood.set_statistics(torch.tensor([10.0, 0.0]), torch.tensor([2.0, 1.0]))
        >>> likelihood(torch.zeros(2)).mean, likelihood(torch.zeros(2)).stddev
        (tensor([10.,  0.]), tensor([2., 1.]))
    """

    needs_std = True
    center: Tensor
    unit: Tensor

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise InputError(f"scale must be positive or None, got {scale}")
        self.scale = scale
        self.outputs_per_pixel = 2 if scale is None else 1

    def build(self, num_pixels: int) -> None:
        self.register_buffer("center", torch.zeros(num_pixels))
        self.register_buffer("unit", torch.ones(num_pixels))

    def set_statistics(self, mean: Tensor, std: Tensor | None = None) -> None:
        self.center.copy_(mean)
        if std is not None:
            # A column that never changes stays as it is.
            self.unit.copy_(torch.where(std > 1e-8 * (1 + mean.abs()), std, torch.ones_like(std)))

    def forward(self, outputs: Tensor) -> NormalDistribution:
        if self.scale is not None:
            return NormalDistribution(self.center + self.unit * outputs, self.scale * self.unit, validate_args=False)
        location, log_scale = self.split(outputs)
        spread = log_scale.clamp(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE).exp()
        return NormalDistribution(self.center + self.unit * location, self.unit * spread, validate_args=False)

    def features(self, x: Tensor, mean: Tensor) -> Tensor:
        """In standard deviations from the mean."""
        return (x - self.center) / self.unit
