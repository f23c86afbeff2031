r"""The toy problem of Gadetsky et al. 2020: the order of n items, many seeds at once.

.. math:: \min_l E_{b \sim \text{PlackettLuce}(l)}\big[\|P_b - T\|_F^2\big], \qquad
    T_{ij} = \tfrac1n + \epsilon \text{ on the diagonal}, \quad \tfrac1n - \tfrac{\epsilon}{n - 1} \text{ elsewhere}

P_b is the permutation's matrix (:func:`dvae.latents.permutation_matrix`). T is nearly that of no order at all: at n = 8 and epsilon
= .05 the best order's loss is 6.2229 and the mean over all orders, where the logits start, 7.0229.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators import RELAX, GradientEstimator
from dvae.lab.toy.engine import ToyProblem, ToyRun, run
from dvae.latents import PlackettLuce, permutation_matrix

__all__ = ["permutation_problem", "permutation_toy"]


_MOST_ITEMS = 9


def permutation_toy(
    estimator: str,
    num_items: int = 8,
    epsilon: float = 0.05,
    *,
    num_seeds: int = 5,
    num_iterations: int = 50_000,
    lr: float = 0.01,
    batch_size: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ToyRun:
    """Run the toy with one estimator and independent seeds, all at once through ``torch.vmap``.

    The expected loss is exact, by enumeration of all orders, at the 100 measurements alone.

    Arguments:
        estimator: out of the library's catalogue, or a class by import path; RELAX has a network of 32 units without weight decay.
        num_items: n, from 2 to 9.
        epsilon: what T's diagonal has above 1 / n, positive and at most 1 - 1 / n.
        num_seeds: independent runs, each with its own noise and its own initial phi; Exact, which has neither, is run once.
        num_iterations: updates of each.
        lr: learning rate of Adam for the logits and for phi.
        batch_size: draws that an update averages over.
        seed: of the first run.
        progress: called with the number of updates done since the last call.

    Raises:
        InputError: an argument is outside its range.

    References:
        Gadetsky, Struminsky, Robinson, Quadrianto & Vetrov, *Low-variance black-box gradient estimates for the Plackett-Luce
        distribution*, 2020. https://arxiv.org/abs/1911.10036
    """
    return run(
        permutation_problem(num_items, epsilon),
        estimator,
        num_seeds=1 if estimator == "Exact" else num_seeds,
        num_iterations=num_iterations,
        lr=lr,
        batch_size=batch_size,
        learn_logit=True,
        seed=seed,
        progress=progress,
    )


def permutation_problem(num_items: int = 8, epsilon: float = 0.05) -> ToyProblem:
    """The problem of so many items.

    Raises:
        InputError: an argument is outside its range.
    """
    if not 2 <= num_items <= _MOST_ITEMS:
        raise InputError(f"num_items must be from 2 to {_MOST_ITEMS}, for all their orders are enumerated, got {num_items}")
    if not 0 < epsilon <= 1 - 1 / num_items:
        raise InputError(f"epsilon must be positive and at most 1 - 1 / num_items, {1 - 1 / num_items:.4g}, got {epsilon}")
    target = torch.full((num_items, num_items), 1 / num_items - epsilon / (num_items - 1)).fill_diagonal_(1 / num_items + epsilon)

    def f(b: Tensor) -> Tensor:
        return -(permutation_matrix(b) - target).square().sum((-2, -1))

    states = PlackettLuce(torch.zeros(num_items)).enumerate()
    loss = -f(states)

    def expected_loss(logits: Tensor) -> Tensor:
        return torch.stack([PlackettLuce(own).log_prob(states).exp() @ loss for own in logits])

    name = f"n = {num_items}, epsilon = {epsilon:g}"
    least, most = loss.min().item(), loss.double().mean().item()
    special: dict[str, Callable[[], GradientEstimator]] = {"RELAX": functools.partial(RELAX, hidden=32, weight_decay=0.0)}
    return ToyProblem(name, epsilon, PlackettLuce, num_items, f, expected_loss, least, most, special)
