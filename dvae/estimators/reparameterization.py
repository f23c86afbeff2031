"""Estimators for continuous latents: the reparameterized gradient, and LAX."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dvae.config import Module, instantiate
from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective, value_and_derivative
from dvae.estimators.control_variates import controlled, weight_penalty
from dvae.latents import Gaussian
from dvae.networks import SurrogateNetwork

__all__ = ["LAX", "Reparameterization"]


class Reparameterization(GradientEstimator[Gaussian]):
    r"""The derivative of f along the path of the sample, its noise held fixed.

    .. math:: g = f'(b)^\top \frac{\partial b}{\partial \text{logits}}, \qquad b = \mu + \sigma \epsilon

    Source: Kingma & Welling 2014. Cost: f at the sample, and f with its derivative there. When: latents are continuous and f has a
    derivative.

    Arguments:
        num_samples: K, samples per example.
    """

    latents = (Gaussian,)
    differentiates = True
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Gaussian, draw: Draw, context: Tensor | None) -> Tensor:
        # Any temperature: it says that the layers above, sampled on the way, are to be differentiated too.
        _, derivative = value_and_derivative(lambda b: f(b, temperature=1.0), draw.b)
        return q.sample_gradient(draw.b, derivative)


class LAX(GradientEstimator[Gaussian]):
    r"""The score function with a network of the sample as control variate, reparameterized.

    .. math:: g = (f(b) - c_\phi(x, b)) \nabla \log q(b) + c_\phi'(x, b)^\top \frac{\partial b}{\partial \text{logits}}

    Source: Grathwohl et al. 2018. Cost: one evaluation of f per sample, and c; f need not be differentiable. When:
    latents (or actions) are continuous, and f has no derivative or a useless one.

    Arguments:
        network: c, a module ``(b [*, B, D], context [*, B, C] or None) -> [*, B]``, or its config; by default a
            :class:`dvae.control_variates.SurrogateNetwork` of ``depth`` hidden ReLU layers of ``hidden`` units.
        weight_decay: as in :class:`dvae.estimators.RELAX`.
        num_samples: K, samples per example.

    Raises:
        InputError: an argument is outside its range.
    """

    latents = (Gaussian,)

    def __init__(
        self,
        *,
        network: nn.Module | dict | None = None,
        hidden: int = 200,
        depth: int = 2,
        weight_decay: float = 0.001,
        num_samples: int = 1,
    ) -> None:
        super().__init__(num_samples)
        if hidden < 1 or depth < 1:
            raise InputError(f"hidden and depth must be at least 1, got {hidden} and {depth}")
        if weight_decay < 0:
            raise InputError(f"weight_decay must not be negative, got {weight_decay}")
        self.hidden, self.depth = hidden, depth
        self.weight_decay = weight_decay
        self.network: Any = None if network is None else instantiate(network, Module, "network")

    def build(self, num_latents: int, num_context: int) -> None:
        if self.network is None:
            self.network = SurrogateNetwork(num_latents, num_context, hidden=self.hidden, depth=self.depth)

    def gradient(self, f: Objective, q: Gaussian, draw: Draw, context: Tensor | None) -> Tensor:
        control, derivative = value_and_derivative(lambda b: self.network(b, context), draw.b)
        return controlled(q, draw.b, draw.value, control, q.sample_gradient(draw.b, derivative))

    def penalty(self, num_latents: int) -> Tensor | float:
        return weight_penalty(self.network, self.weight_decay, num_latents)
