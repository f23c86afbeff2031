"""Straight-through estimators: f differentiated at the hard sample, as if it were a relaxed one. All are biased."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.estimators.base import Draw, GradientEstimator, Objective, value_and_derivative
from dvae.estimators.concrete import Concrete
from dvae.latents import Bernoulli, Categorical, Discrete

__all__ = ["GumbelStraightThrough", "ReinMax", "StraightThrough"]


class StraightThrough(GradientEstimator[Discrete]):
    r"""The derivative of f at the hard sample, taken for its derivative with respect to the mean.

    .. math:: g = f'(b)^\top \frac{\partial p}{\partial \text{logits}}

    Source: Bengio, Léonard & Courville 2013. Biased, unless f is linear. Cost: f at the sample, and f with its derivative
    there. When: a baseline that everybody knows.

    Arguments:
        num_samples: K, samples per example.
    """

    unbiased = False
    latents = (Bernoulli, Categorical)
    differentiates = True
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        _, derivative = value_and_derivative(f, draw.b)
        return q.mean_gradient(derivative)


class GumbelStraightThrough(Concrete):
    r"""The derivative of f at the hard sample, taken for its derivative at the relaxed one.

    .. math:: g = f'(b)^\top \frac{\partial\, \text{soft}(z, T)}{\partial \text{logits}}

    Source: Jang et al. 2017. Biased. Cost: f at the sample, and f with its derivative there. When: f takes hard samples only.

    Arguments: as :class:`dvae.estimators.Concrete`.
    """

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        _, derivative = value_and_derivative(f, draw.b)
        # dz / dlogits = 1; for categories up to a shift of all classes, to which softmax is blind.
        _, pull_back, *_ = torch.func.vjp(lambda z: q.soft(z, self.temperature), draw.z)
        return pull_back(derivative)[0]


class ReinMax(StraightThrough):
    r"""Straight-through of second order: exact where f is quadratic along every single variable.

    .. math:: g = 2 f'(b)^\top J\Big(\frac{b + p}{2}\Big) - \tfrac12 f'(b)^\top J(p), \qquad
        J(p) = \frac{\partial p}{\partial \text{logits}} \text{ where the probabilities are } p

    Source: Liu et al. 2023 (Heun's method). Biased in general. Cost: f at the sample, and f with its derivative
    there. When: a biased gradient will do; less biased than the others here.

    Arguments:
        num_samples: K, samples per example.
    """

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        _, derivative = value_and_derivative(f, draw.b)
        return 2 * q.mean_gradient(derivative, 0.5 * (draw.b + q.probs)) - 0.5 * q.mean_gradient(derivative)
