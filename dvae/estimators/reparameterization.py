"""Estimators for continuous latents: the reparameterized gradient, and LAX."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective, value_and_derivative
from dvae.estimators.control_variates import Surrogate, controlled, weight_penalty
from dvae.latents import Gaussian

__all__ = ["LAX", "Reparameterization"]


class Reparameterization(GradientEstimator[Gaussian]):
    r"""The derivative of f along the path of the sample, its noise held fixed.

    .. math:: g = f'(b)^\top \frac{\partial b}{\partial \text{logits}}, \qquad b = \mu + \sigma \epsilon

    Requires: the derivative of f. Cost: f at the sample, and f with its derivative there. When: latents are continuous.

    Arguments:
        num_samples: K, samples per example.

    References:
        Kingma & Welling, *Auto-Encoding Variational Bayes*, 2014. https://arxiv.org/abs/1312.6114

    Example: of a linear f, the gradient with respect to the means.

        >>> q = dvae.latents.Gaussian(torch.zeros(1, 3, 2))
        >>> dvae.estimators.Reparameterization()(lambda b: b.sum(-1), q).grad[..., 0]
        tensor([[1., 1., 1.]])
    """

    reference = "Kingma & Welling 2014"
    latents = (Gaussian,)
    differentiates = True
    derivative_at_sample = True
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Gaussian, draw: Draw, context: Tensor | None) -> Tensor:
        # Any temperature: it says that the layers above, sampled on the way, are to be differentiated too.
        return q.sample_gradient(draw.b, self.derivative(lambda b: f(b, temperature=1.0), draw))


class LAX(GradientEstimator[Gaussian]):
    r"""The score function with a network of the sample as control variate, reparameterized.

    .. math:: g = (f(b) - c_\phi(x, b)) \nabla \log q(b) + c_\phi'(x, b)^\top \frac{\partial b}{\partial \text{logits}}

    Requires: f's values. Cost: one evaluation of f per sample, and c with its derivative. When: latents (or actions) are
    continuous, and f has no derivative or a useless one.

    Arguments:
        network: c, a module ``(b [*, B, D], context [*, B, C] or None) -> [*, B]``, or its config; by default a
            :class:`dvae.networks.SurrogateNetwork` of ``depth`` hidden ReLU layers of ``hidden`` units. A config may leave
            ``num_latents`` and ``num_context`` open.
        weight_decay: as in :class:`dvae.estimators.RELAX`.
        num_samples: K, samples per example.

    Raises:
        InputError: an argument is outside its range.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018. https://arxiv.org/abs/1711.00123

    Example: a step function of a normal variable, whose derivative is zero almost everywhere.

        >>> q = dvae.latents.Gaussian(torch.zeros(1, 1, 2))
        >>> estimate = dvae.estimators.LAX(hidden=16, num_samples=100_000)(lambda b: (b > 0).sum(-1), q)
        >>> estimate.grad[0, 0, 0].isclose(torch.tensor(2 * torch.pi).rsqrt(), atol=0.02).item()
        True
    """

    reference = "Grathwohl et al. 2018"
    latents = (Gaussian,)

    def __init__(
        self,
        *,
        network: nn.Module | dict[str, Any] | None = None,
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
        self.surrogate = Surrogate(network, hidden, depth)
        self.network: Any = None if self.surrogate.waits else self.surrogate.made()

    def build(self, num_latents: int, num_context: int) -> None:
        if self.network is None:
            self.network = self.surrogate.made(num_latents=num_latents, num_context=num_context)

    def gradient(self, f: Objective, q: Gaussian, draw: Draw, context: Tensor | None) -> Tensor:
        control, derivative = value_and_derivative(lambda b: self.network(b, context), draw.b)
        return controlled(q, draw.b, draw.value, control, q.sample_gradient(draw.b, derivative))

    def penalty(self, num_latents: int) -> Tensor | float:
        return weight_penalty(self.network, self.weight_decay, num_latents)
