"""The factorial prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dvae.errors import InputError
from dvae.latents import Spec
from dvae.priors.base import Prior

__all__ = ["Factorial", "SpatialFactorial"]


class Factorial(Prior):
    r"""Independent latents with learned logits, from 0.

    .. math:: p(b) = \prod_d p(b_d)

    Arguments:
        num_latents: size of the flat logits (D, or D C for categorical latents); the model's where it is None.

    Raises:
        InputError: ``num_latents`` is less than 1, or not the model's.

    Example:
        >>> prior = dvae.priors.Factorial()
        >>> prior.build(dvae.latents.Spec(dvae.latents.Bernoulli, 3))
        >>> prior(), prior().sample(5).shape
        (Bernoulli(logits: (3,)), torch.Size([5, 3]))
    """

    def __init__(self, num_latents: int | None = None) -> None:
        super().__init__()
        if num_latents is not None and num_latents < 1:
            raise InputError(f"num_latents must be at least 1, got {num_latents}")
        self.num_latents = num_latents
        self.latent: Spec | None = None

    def build(self, latent: Spec) -> None:
        if self.num_latents not in (None, latent.num_logits):
            raise InputError(f"prior: num_latents must be {latent.num_logits}, the model's logits, got {self.num_latents}")
        self.latent = latent
        self.logits = nn.Parameter(torch.zeros(latent.num_logits))

    def forward(self) -> Any:
        assert self.latent is not None
        return self.latent(self.logits)


class SpatialFactorial(Prior):
    r"""Independent latents on a grid, with learned logits, from 0, that are the same at each place; for grids of every size.

    .. math:: p(b) = \prod_{h, w} \prod_d p(b_{h w d})

    It is a model's default where its code is on a grid.

    Raises:
        InputError: in :meth:`build`, the model's latents are not on a grid.

    Example:
        >>> prior = dvae.priors.SpatialFactorial()
        >>> prior.build(dvae.latents.Spec(dvae.latents.Bernoulli, 12, grid=(2, 2)))
        >>> prior.logits.shape, prior().sample(5).shape
        (torch.Size([3]), torch.Size([5, 12]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.latent: Spec | None = None

    def build(self, latent: Spec) -> None:
        if latent.grid is None:
            raise InputError(
                "prior: SpatialFactorial needs latents on a grid, those of a model of one layer whose encoder and decoder are "
                "ResidualEncoder and ResidualDecoder; for others take Factorial"
            )
        self.latent = latent
        self.logits = nn.Parameter(torch.zeros(latent.num_logits // latent.num_places))

    @property
    def grid(self) -> tuple[int, int] | None:
        """(H', W') of the codes that it is of; it may be set."""
        return None if self.latent is None else self.latent.grid

    @grid.setter
    def grid(self, grid: tuple[int, int]) -> None:
        assert self.latent is not None
        self.latent = self.latent.on(grid)

    def forward(self) -> Any:
        assert self.latent is not None
        return self.latent(self.logits.repeat(self.latent.num_places))
