"""Values out of a few, each with a probability of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical as CategoricalDistribution

from dvae.errors import InputError
from dvae.likelihoods.base import Likelihood, raised, tilt_of

__all__ = ["Categorical"]


class Categorical(Likelihood):
    r"""Independent values out of 0, ..., levels - 1; the outputs are the logits of each.

    .. math:: \log p(x) = \sum_d l_{d, x_d} - \log \sum_k e^{l_{d, k}}

    For labels and few levels. Neighbouring levels are unrelated: for 8-bit images :class:`DiscretizedLogistic` has 2 outputs a
    value in place of 256.

    Arguments:
        levels: how many values there are, at least 2.

    Raises:
        InputError: ``levels`` is less than 2.

    Example:
        >>> likelihood = dvae.likelihoods.Categorical(levels=4)
        >>> likelihood.log_prob(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 8)).exp()
        tensor([0.0625])
    """

    low = 0.0
    whole = True

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        if levels < 2:
            raise InputError(f"levels must be at least 2, got {levels}")
        self.levels = self.outputs_per_pixel = levels
        self.high = levels - 1.0

    def forward(self, outputs: Tensor) -> CategoricalDistribution:
        return CategoricalDistribution(logits=outputs.unflatten(-1, (self.levels, -1)).movedim(-2, -1), validate_args=False)

    def mean(self, outputs: Tensor) -> Tensor:
        """The mean of the level's number, [*, num_pixels]."""
        probs = self(raised(outputs)).probs
        return (probs * torch.arange(self.levels, dtype=probs.dtype, device=probs.device)).sum(-1)

    def start(self, mean: Tensor) -> Tensor:
        """Of the distributions with that mean the one of largest entropy, whose logits are a straight line."""
        place = torch.linspace(0, 1, self.levels, dtype=torch.float64, device=mean.device)

        def mean_at(slope: Tensor) -> Tensor:
            return ((slope[:, None] * place).softmax(-1) * place).sum(-1)

        slope = tilt_of((mean.double() / self.high).clamp(0.03, 0.97), mean_at)
        return (place[:, None] * slope).flatten().to(mean.dtype)

    def features(self, x: Tensor, mean: Tensor) -> Tensor:
        """Centred, and divided by half of the range."""
        return (x - mean) * (2 / self.high)
