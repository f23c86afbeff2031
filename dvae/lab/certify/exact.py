"""Exact gradients by enumeration."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.lab.certify.problems import Problem
from dvae.latents import Latent, Spec
from dvae.models import VAE, Layer

__all__ = ["ExactGradient", "exact_gradient"]


# States of all K samples together that the bound of K samples is summed over.
_MAX_TUPLES = 2**16


class ExactGradient(NamedTuple):
    """By enumeration: d E[f] / d logits, and the total variance of REINFORCE without and with the best constant baseline."""

    gradient: Tensor
    reinforce_variance: float | None
    optimal_baseline_variance: float | None


def exact_gradient(problem: Problem, estimator: GradientEstimator | None = None) -> ExactGradient:
    """The exact gradient of a problem's expectation; of the K-sample bound's where the estimator is for that."""
    q = type(problem.q)(problem.q.logits[0])
    states, probs = q.states()
    value = problem.objective(states[:, None])[:, 0]
    score = q.score(states).reshape(len(states), -1)
    if estimator is not None and estimator.multi_sample:
        tuples = _tuples(len(states), estimator.num_samples)
        weight = probs[tuples].prod(-1) * estimator.combine(value[tuples].T)
        gradient = sum(weight @ score[column] for column in tuples.T)
        return ExactGradient(torch.as_tensor(gradient).reshape(q.logits.shape), None, None)
    gradient = (probs * value) @ score
    norm = score.square().sum(-1)
    baseline = (probs * value * norm).sum() / (probs * norm).sum()

    def variance(a: Tensor) -> float:
        return ((probs * (value - a).square() * norm).sum() - gradient.square().sum()).item()

    return ExactGradient(gradient.reshape(q.logits.shape), variance(torch.zeros_like(baseline)), variance(baseline))


def _tuples(base: int, length: int) -> Tensor:
    """All tuples of so many numbers below ``base``, [base^length, length]."""
    return torch.cartesian_prod(*[torch.arange(base)] * length).reshape(-1, length)


def example(estimator: GradientEstimator, family: type[Latent], num_latents: int) -> Spec:
    """The spec of a problem: as many variables as can be enumerated, for the K-sample bound in all K samples together.

    Raises:
        InputError: not even one variable can.
    """
    latent = family.example(num_latents)
    while _too_many(estimator, latent):
        if latent.num_variables == 1:
            raise InputError(
                f"num_samples is too large to enumerate the bound of {family.__name__} latents, got {estimator.num_samples}"
            )
        latent = replace(latent, num_variables=latent.num_variables - 1)
    return latent


def two_layer_example(estimator: GradientEstimator, family: type[Latent]) -> Spec | None:
    """The spec of both layers of a model whose states can be enumerated; None where there is none."""
    fewest = 2 if _num_states(replace(family.example(2), num_variables=1)) == 1 else 1  # one item has one order alone
    for num_latents in (fewest,) if estimator.multi_sample else (fewest + 1, fewest):
        latent = replace(family.example(2), num_variables=num_latents)
        if _num_states(latent) ** 2 <= _MAX_TUPLES and not _too_many(estimator, latent, 2):
            return latent
    return None


def _too_many(estimator: GradientEstimator, latent: Spec, num_layers: int = 1) -> bool:
    return estimator.multi_sample and _num_states(latent) ** (num_layers * estimator.num_samples) > _MAX_TUPLES


def _num_states(latent: Spec) -> int:
    return latent(torch.zeros(latent.num_logits)).num_states


def exact_objective(model: VAE, x: Tensor) -> Tensor:
    """The objective of x [1, num_pixels] (a K-sample bound where the estimator is for that), by enumeration; differentiable."""
    probability = torch.ones(1, dtype=x.dtype)
    samples: list[Tensor] = []  # of each layer, [states so far, 1, *sample]
    for index in range(model.num_layers):
        q = model.infer(index, x, samples)
        parts = [type(q)(logits[0]).states() for logits in (q.logits if samples else q.logits[None])]
        size = len(parts[0][0])
        samples = [own.repeat_interleave(size, 0) for own in samples]
        samples.append(torch.cat([states for states, _ in parts])[:, None])
        probability = (probability[:, None] * torch.stack([probs for _, probs in parts])).reshape(-1)
    layers = []
    for index, sample in enumerate(samples):
        q = model.infer(index, x, samples[:index])
        event = q.logits.shape[-q.event_dim :]
        layers.append(Layer(type(q)(q.logits.expand(len(probability), 1, *event)), sample, sample))
    log_weight = model.objective(model.terms(x, layers))[:, 0]
    estimator = model.estimators[0]
    if not estimator.multi_sample:
        return (probability * log_weight).sum()
    tuples = _tuples(len(probability), estimator.num_samples)
    return (probability[tuples].prod(-1) * estimator.combine(log_weight[tuples].T)).sum()
