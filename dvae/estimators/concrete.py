"""The Concrete (Gumbel-softmax) relaxation."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.latents import Bernoulli, Categorical, Discrete, PlackettLuce

__all__ = ["Concrete"]


class Concrete(GradientEstimator[Discrete]):
    r"""The gradient of f at the relaxed sample: low variance, biased.

    .. math:: g = \frac{\partial f(\text{soft}(z, T))}{\partial \text{logits}}, \qquad
        \text{soft} = \sigma(z / T) \text{ or } \text{softmax}(z / T)

    T is fixed: the variance of a biased gradient is smallest where it says nothing.

    Requires: the derivative of f at relaxed samples. Cost: f at the hard sample, for theta and the reported ELBO, and f with its
    derivative at the relaxed one. When: variance matters more than bias, early in training.

    Arguments:
        temperature: T, positive.
        num_samples: K, samples per example.

    Raises:
        InputError: the temperature is not positive.

    References:
        Maddison, Mnih & Teh, *The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables*, 2017.
        https://arxiv.org/abs/1611.00712

        Jang, Gu & Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017. https://arxiv.org/abs/1611.01144

    Example: relaxed samples of a categorical variable add up to 1, so a sum over its classes has no gradient.

        >>> q = dvae.latents.Categorical(torch.zeros(1, 2, 3))
        >>> estimate = dvae.estimators.Concrete(temperature=0.5)(lambda b: b.sum((-2, -1)), q)
        >>> estimate.grad.allclose(torch.zeros(1, 2, 3), atol=1e-6)
        True
    """

    reference = "Maddison et al. 2017"
    unbiased = False
    latents = (Bernoulli, Categorical, PlackettLuce)
    differentiates = True
    evaluations_per_sample = 2
    _temperature: Tensor

    def __init__(self, temperature: float = 0.5, *, num_samples: int = 1) -> None:
        super().__init__(num_samples)
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        # A tensor, so that it may differ between replicas.
        self.register_buffer("_temperature", torch.tensor(float(temperature)), persistent=False)

    @property
    def temperature(self) -> Tensor:
        """T, a scalar tensor that a checkpoint does not hold: the config does."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature.fill_(value)

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        def value(z: Tensor) -> Tensor:
            return f(q.soft(z, self.temperature), temperature=self.temperature).sum()

        # dz / dlogits = 1; for categories up to a shift of all classes, to which softmax is blind.
        return torch.func.grad(value)(draw.z)
