r"""The toy problem of Tucker et al. 2017 and Grathwohl et al. 2018: one Bernoulli variable, many seeds at once.

.. math:: \min_l E_{b \sim \text{Bernoulli}(\sigma(l))}[(b - t)^2]

At t = .499 the two losses, .249001 and .251001, are nearly the same: a gradient with any noise drowns in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.estimators import RELAX, GradientEstimator
from dvae.lab.toy.engine import ToyProblem, ToyRun, estimator_for, run
from dvae.latents import Bernoulli
from dvae.networks import MLP

__all__ = ["SoftSurrogate", "toy", "toy_estimator"]


class SoftSurrogate(Module):
    """The toy's control variate, Q(sigmoid(z / T)) with a small tanh network Q that starts at zero (Grathwohl et al. 2018).

    Arguments:
        hidden: units of Q.
        temperature: the initial T.
    """

    def __init__(self, hidden: int = 10, temperature: float = 0.5) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.q = MLP(1, 1, [hidden], output_scale=0.0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """[*, B, 1] to [*, B]."""
        return self.q(torch.sigmoid(z / self.log_temperature.exp())).squeeze(-1)


def toy_estimator(name: str) -> GradientEstimator:
    """The estimator of that name: the toy's own RELAX, one of the library's catalogue, or a class by import path.

    Raises:
        InputError: the name is unknown, or its estimator is not for Bernoulli latents.
    """
    return estimator_for(Bernoulli, name, _SPECIAL)


def toy(
    estimator: str,
    target: float = 0.499,
    *,
    num_seeds: int = 10,
    num_iterations: int = 10_000,
    lr: float = 0.01,
    batch_size: int = 1,
    learn_logit: bool = True,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ToyRun:
    """Run the toy with one estimator and independent seeds, all at once through ``torch.vmap``.

    Arguments:
        estimator: see :func:`toy_estimator`.
        target: t, from 0 to 1.
        num_seeds: independent runs, each with its own noise and its own initial phi.
        num_iterations: updates of each.
        lr: learning rate of Adam for the logit and for phi.
        batch_size: draws that an update averages over.
        learn_logit: else the logit stays at 0, p = 1/2, and phi alone is learned: the best control variate there.
        seed: of the first run.
        progress: called with the number of updates done since the last call.

    Raises:
        InputError: an argument is outside its range.
    """
    if not 0 <= target <= 1:
        raise InputError(f"target must be from 0 to 1, got {target}")
    return run(
        _problem(target),
        estimator,
        num_seeds=num_seeds,
        num_iterations=num_iterations,
        lr=lr,
        batch_size=batch_size,
        learn_logit=learn_logit,
        seed=seed,
        progress=progress,
    )


def _problem(target: float) -> ToyProblem:
    def f(b: Tensor) -> Tensor:
        return -(b - target).square().sum(-1)

    def expected_loss(logits: Tensor) -> Tensor:
        p = torch.sigmoid(logits).reshape(-1)
        return p * (1 - target) ** 2 + (1 - p) * target**2

    least, most = sorted(((1 - target) ** 2, target**2))
    return ToyProblem(f"t = {target:g}", target, Bernoulli, 1, f, expected_loss, least, most, _SPECIAL)


def _relax() -> GradientEstimator:
    return RELAX(black_box=True, network=SoftSurrogate(), weight_decay=0.0)


_SPECIAL = {"RELAX": _relax}
