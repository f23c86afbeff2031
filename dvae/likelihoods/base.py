"""What a likelihood is."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from dvae.config import Module
from dvae.errors import InputError

__all__ = ["Likelihood"]


class Likelihood(Module):
    """p(x | b): a module whose ``forward`` turns the decoder's outputs into a ``torch.distributions`` object over x.

    A subclass writes :meth:`forward` and :meth:`start`, and states its facts as class attributes.
    """

    outputs_per_pixel: int = 1
    """Numbers that the decoder gives for each value of x."""
    low: float = 0.0
    """The smallest value of x."""
    high: float = 1.0
    """The largest value of x."""

    def forward(self, outputs: Tensor) -> Distribution:
        """The distribution of x, from the decoder's outputs [*, num_pixels * outputs_per_pixel]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(outputs)")

    def start(self, mean: Tensor) -> Tensor:
        """What to add to the outputs so that training starts at the data's mean [num_pixels]; the outputs' shape."""
        raise NotImplementedError(f"{type(self).__name__} must define start(mean)")

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p(x | outputs) in nats, summed over the values of an example, [*, num_pixels] to [*]."""
        return self(outputs).log_prob(x).sum(-1)

    def mean(self, outputs: Tensor) -> Tensor:
        """E[x], [*, num_pixels]: what a picture shows."""
        return self(outputs).mean

    def check(self, x: Tensor) -> None:
        """An InputError where x has values outside the range."""
        low, high = x.aminmax() if x.numel() else (x.new_tensor(self.low), x.new_tensor(self.low))
        if not (low >= self.low and high <= self.high):
            raise InputError(
                f"x must hold values in [{self.low:g}, {self.high:g}], got values from {low.item():g} to {high.item():g}"
            )

    def covers(self, x: Tensor) -> bool:
        """Whether the distribution is normalised over values such as x's, so that the ELBO is a bound on log p(x)."""
        example = self(self.start(x.float().mean(0).clamp(self.low, self.high)))
        support = example.support
        return bool(support.check(x.to(example.mean.dtype)).all())
