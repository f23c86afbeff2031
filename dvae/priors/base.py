"""What a prior is."""

from __future__ import annotations

from typing import Any

from dvae.config import Module
from dvae.latents import Spec

__all__ = ["Prior"]


class Prior(Module):
    """p(b) of the top layer: a module whose ``forward`` returns a distribution with ``log_prob``, ``sample`` and ``kl``.

    A distribution's ``log_prob(b)`` takes hard and relaxed samples, [*, B, D] to [*, B]; ``sample(n)`` gives [n, D]. A latent
    family's own distribution (:class:`dvae.latents.Latent`) is one, and KL(q || p) is ``q.kl(p)``.
    """

    def build(self, latent: Spec) -> None:
        """Create the parameters for these latents; called once, by the model.

        Raises:
            InputError: this prior is not for them.
        """

    def forward(self) -> Any:
        """The distribution, without a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")
