"""What a likelihood is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from dvae.config import Module
from dvae.errors import InputError

__all__ = ["Likelihood"]


class Likelihood(Module):
    """p(x | b): a module whose ``forward`` turns the decoder's outputs into a ``torch.distributions`` object over x.

    A subclass writes :meth:`forward`, and states the facts that differ from those below as class attributes. What it has of
    parameters is trained with the decoder.
    """

    outputs_per_pixel: int = 1
    """Numbers that the decoder gives for each value of x; of an image they are whole images, one after the other."""
    low: float = -math.inf
    """The smallest value of x."""
    high: float = math.inf
    """The largest value of x."""
    whole: bool = False
    """Whether the values of x are integers: then the ELBO is one of probabilities, and is also given in bits per dimension."""
    needs_std: bool = False
    """Whether :meth:`set_statistics` takes the data's standard deviation."""

    def build(self, num_pixels: int) -> None:
        """Create what depends on the number of values of an example; called once, by the model."""

    def forward(self, outputs: Tensor) -> Distribution:
        """The distribution of x [*, num_pixels], from the decoder's outputs [*, num_pixels * outputs_per_pixel]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(outputs)")

    def start(self, mean: Tensor) -> Tensor:
        """What to add to the outputs so that training starts at the data's mean [num_pixels]; the outputs' shape, by default 0."""
        return mean.new_zeros(mean.shape[-1] * self.outputs_per_pixel)

    def set_statistics(self, mean: Tensor, std: Tensor | None = None) -> None:
        """Take note of the training set's mean and, with :attr:`needs_std`, standard deviation, [num_pixels] each."""

    def features(self, x: Tensor, mean: Tensor) -> Tensor:
        """x as encoder and control variate see it, [*, num_pixels]: less the training set's mean."""
        return x - mean

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p(x | outputs) in nats, summed over the values of an example, [*, num_pixels] to [*]."""
        distribution = self(raised(outputs))
        value = distribution.log_prob(x)
        return value if distribution.event_shape else value.sum(-1)

    def mean(self, outputs: Tensor) -> Tensor:
        """E[x], [*, num_pixels]: what a picture shows."""
        return self(raised(outputs)).mean

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs one by one, :attr:`outputs_per_pixel` tensors [*, num_pixels]."""
        return outputs.unflatten(-1, (self.outputs_per_pixel, -1)).unbind(-2)

    def check(self, x: Tensor) -> None:
        """An InputError where x has values that are outside the range, or no integers where :attr:`whole` asks for them."""
        self._require_range(x, self._values)
        if self.whole and not _are_integers(x):
            example = x[x != x.floor()][0].item()
            raise InputError(f"x must hold {self._values}, got {example:g} among others")

    def covers(self, x: Tensor) -> bool:
        """Whether the distribution is normalised over values such as x's, so that the ELBO is a bound on log p(x)."""
        return self._in_range(x) and (not self.whole or _are_integers(x))

    def _require_range(self, x: Tensor, values: str) -> None:
        if not self._in_range(x):
            low, high = x.aminmax()
            raise InputError(f"x must hold {values}, got values from {low.item():g} to {high.item():g}")

    @property
    def _values(self) -> str:
        kind = "integers" if self.whole else "values"
        if math.isinf(self.low) and math.isinf(self.high):
            return f"finite {kind}"
        return f"{kind} from {self.low:g} on" if math.isinf(self.high) else f"{kind} in [{self.low:g}, {self.high:g}]"

    def _in_range(self, x: Tensor) -> bool:
        if not x.numel():
            return True
        low, high = x.aminmax()  # a NaN is in both
        return bool(low >= self.low and high <= self.high and low.abs() < math.inf and high.abs() < math.inf)


def _are_integers(x: Tensor) -> bool:
    return not x.is_floating_point() or bool((x == x.floor()).all())


def raised(outputs: Tensor) -> Tensor:
    """The outputs in at least float32: hundreds of terms do not add up in half precision."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def tilt_of(mean: Tensor, mean_at: Callable[[Tensor], Tensor], largest: float = 50.0) -> Tensor:
    """The parameter, within ``+-largest``, at which a function that grows with it has the given value; by bisection."""
    low, high = torch.full_like(mean, -largest), torch.full_like(mean, largest)
    for _ in range(60):
        middle = (low + high) / 2
        below = mean_at(middle) < mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
