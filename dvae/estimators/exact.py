"""The exact gradient, by enumeration: the oracle."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.latents import Bernoulli, Categorical, Discrete, PlackettLuce

__all__ = ["Exact"]

_MAX_STATES, _CHUNK = 2**20, 2**12


class Exact(GradientEstimator[Discrete]):
    r"""The gradient itself, by enumeration of all states.

    .. math:: g = \sum_b q(b) f(b) \nabla \log q(b)

    The oracle for tests and for small problems; theta still gets the gradient of f at one sample. With several stochastic layers
    each is enumerated while the others are sampled.

    Requires: f's values. Cost: one evaluation of f for each of the 2^D (or C^D) states. When: to check another estimator, and where
    the states are few.

    Arguments:
        num_samples: K, samples per example for theta.

    Raises:
        InputError: more than 2^20 states.

    Example:
        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> dvae.estimators.Exact()(lambda b: b.sum(-1), q).grad
        tensor([[0.2500, 0.2500, 0.2500]])
    """

    latents = (Bernoulli, Categorical, PlackettLuce)
    evaluations_per_sample = None

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        if q.num_states > _MAX_STATES:
            raise InputError(f"Exact enumerates at most {_MAX_STATES} states, got {q.num_states}")
        single = (1,) * (draw.b.dim() - q.sample_dim)
        total = torch.zeros((), dtype=draw.b.dtype, device=draw.b.device)
        for states in q.enumerate().split(_CHUNK):
            b = states.reshape(-1, *single, *states.shape[1:]).expand(-1, *draw.b.shape)
            total = total + q.score(b, q.log_prob(b).exp() * f(b)).sum(0)
        return total
