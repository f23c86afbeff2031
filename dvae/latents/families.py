"""All families of the library, and which of them a distribution of PyTorch is."""

from __future__ import annotations

import torch
from torch.distributions import Distribution, Independent

from dvae.errors import InputError
from dvae.latents.base import Latent
from dvae.latents.bernoulli import Bernoulli
from dvae.latents.categorical import Categorical
from dvae.latents.gaussian import Gaussian
from dvae.latents.permutation import PlackettLuce

__all__ = ["FAMILIES", "of"]

FAMILIES: tuple[type[Latent], ...] = (Bernoulli, Categorical, Gaussian, PlackettLuce)
"""All families of the library."""


def of(q: Latent | Distribution) -> Latent:
    """A distribution of ``torch.distributions`` as the latent that it is, with its graph; a latent passes through.

    Arguments:
        q: ``Bernoulli`` or ``Normal`` of parameters [*, B, D], or ``OneHotCategorical`` of [*, B, D, C]; the variables may be
            declared ``Independent``.

    Raises:
        InputError: it is of another kind or shape.

    Example:
        >>> dvae.latents.of(torch.distributions.Bernoulli(logits=torch.zeros(5, 3)))
        Bernoulli(logits: (5, 3))
    """
    if isinstance(q, Latent):
        return q
    plain = _without_independent(q)
    for family in FAMILIES:
        if family.torch_class is not None and isinstance(plain, family.torch_class):
            return family.from_torch(plain)
    if isinstance(plain, torch.distributions.Categorical):
        raise InputError(
            "q must have one-hot samples, for that is what f gets, got torch.distributions.Categorical, whose samples are indices: "
            "take torch.distributions.OneHotCategorical(logits=...) or dvae.latents.Categorical(...)"
        )
    supported = ", ".join(family.torch_class.__name__ for family in FAMILIES if family.torch_class is not None)
    raise InputError(
        f"q must be a latent of dvae.latents or one of {supported} of torch.distributions, which may be in Independent, "
        f"got {type(plain).__module__}.{type(plain).__qualname__}"
    )


def _without_independent(q: Distribution) -> Distribution:
    """The distribution of the variables themselves, one example's in the last dimension of its batch shape."""
    declared = 0
    while isinstance(q, Independent):
        declared += q.reinterpreted_batch_ndims
        q = q.base_dist
    if declared > 1:
        raise InputError(
            f"q must have one example's variables in one dimension, got Independent over {declared} dimensions: flatten them"
        )
    return q
