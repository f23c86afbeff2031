"""What a prior is."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dvae.config import Module
from dvae.latents import Latent, Spec

__all__ = ["Prior"]


class Prior(Module):
    """p(b) of the top layer: a module whose ``forward`` returns a distribution with ``log_prob`` and ``sample``.

    A distribution's ``log_prob(b)`` takes hard and relaxed samples, [*, B, D] to [*, B], and is continuous in b; ``sample(n)``
    gives [n, D]. A latent family's own distribution (:class:`dvae.latents.Latent`) is one.

    A prior that is known up to a constant has samples of its own among its buffers, which each step moves on (:meth:`advance`), and
    measures the constant (:meth:`normalize`).
    """

    closed_kl: ClassVar[bool] = True
    """Whether :meth:`kl` is known."""

    def build(self, latent: Spec) -> None:
        """Create the parameters for these latents; called once, by the model.

        Raises:
            InputError: this prior is not for them.
        """

    def forward(self) -> Any:
        """The distribution, without a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def kl(self, q: Latent) -> Tensor:
        """KL(q || p) in nats, [*, B], in closed form."""
        return q.kl(self())

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """Of the uniform noise that a training step draws for :meth:`advance`; None where there is nothing to move on."""
        return None

    def advance(self, noise: Tensor) -> None:
        """Move the samples that the gradient of the constant is an average over; a step does so before it takes its gradient.

        As in an estimator's statistics, buffers are assigned anew and not changed in place.

        Arguments:
            noise: uniform, of :attr:`noise_shape`.
        """

    def normalize(self, generator: torch.Generator | None = None) -> None:
        """Measure the constant at the parameters of today, in place; validation and evaluation begin with it."""

    @property
    def log_constant(self) -> tuple[float, float] | None:
        """The logarithm of the constant as it was measured last, nats, with its standard error; None where there is none."""
        return None
