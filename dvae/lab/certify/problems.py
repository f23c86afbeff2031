"""Random small problems whose gradient can be enumerated."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dvae.latents import Latent, Spec
from dvae.noise import seeded_generator

__all__ = ["Problem", "random_problems"]


# Rare values take more draws to be seen often enough for a standard error.
EXTREME_DRAWS = 4


class Problem(NamedTuple):
    """A small problem whose gradient can be enumerated.

    objective: takes samples [*, 1, D] (for categorical latents [*, 1, D, C]) to [*, 1].
    q: the distribution, of one example, in float64.
    context: [1, 3], what control variates may look at.
    """

    name: str
    objective: Callable[[Tensor], Tensor]
    q: Latent
    context: Tensor


def random_problems(num_problems: int, latent: Spec, seed: int = 0) -> Iterator[Problem]:
    """Random objectives and logits in float64: four kinds of objective in turn, logits of growing size up to about +-6."""
    for index in range(num_problems):
        scale = 0.5 + 1.5 * index / max(num_problems - 1, 1)
        yield _problem(index, list(_OBJECTIVES)[index % len(_OBJECTIVES)], latent, seed, scale)


def _problem(index: int, kind: str, latent: Spec, seed: int, scale: float) -> Problem:
    generator = seeded_generator(torch.Generator(), seed, 1, index)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    size = latent.num_features
    weights, matrix, offset = normal(size), normal(size, size), 3 * normal(1)
    objective = functools.partial(_OBJECTIVES[kind], weights=weights, matrix=matrix, offset=offset)
    q = latent.family(scale * latent.family.example_scale * normal(1, *latent.logits_shape))
    return Problem(f"{latent.family.__name__}: {kind} {index}", lambda b: objective(latent.flat(b)), q, normal(1, 3))


def extreme_problem(latent: Spec, num_samples: int, seed: int) -> Problem:
    """Logits from -L to L, L = 10, or less where so few draws would not see the rarer value some 200 times."""
    problem = _problem(0, "quadratic", latent, seed, 1.0)
    largest = min(10.0, math.log(EXTREME_DRAWS * num_samples / 200))
    ramp = torch.linspace(-1, 1, problem.q.logits.numel(), dtype=torch.float64).reshape_as(problem.q.logits)
    q = latent.family(latent.family.extreme_logits(ramp, largest))
    return problem._replace(name=f"{latent.family.__name__}: extreme logits", q=q)


def _linear(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return b @ weights + offset


def _quadratic(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return ((b @ matrix) * b).sum(-1) + offset


def _multiplicative(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return (1 + weights * b).prod(-1) + offset


def _network(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return 2 * torch.tanh(b @ matrix - 0.5) @ weights + offset


_OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "multiplicative": _multiplicative,
    "network": _network,
}
