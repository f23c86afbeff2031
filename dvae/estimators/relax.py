"""REBAR and RELAX: score-function estimators with a control variate on the relaxed sample."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective, value_and_derivative
from dvae.estimators.control_variates import Surrogate, controlled, weight_penalty
from dvae.functional import pull_back
from dvae.latents import Bernoulli, Categorical, Discrete, PlackettLuce

__all__ = ["REBAR", "RELAX"]


class REBAR(GradientEstimator[Discrete]):
    r"""The score function with f at the relaxed sample as control variate, reparameterized.

    .. math::
        g = (f(b) - \eta c(\tilde z)) \nabla \log q(b) + \eta \nabla c(z) - \eta \nabla c(\tilde z), \qquad
        c(z) = f(\text{soft}(z, T))

    with gradients with respect to the logits and :math:`\tilde z \sim p(z | b)`. Coupled, :math:`\tilde z` is drawn from the same
    uniform as z, so that both have one value and one derivative of c serves for both (:meth:`dvae.latents.Discrete.path`). T and
    eta are phi, learned by minimising the variance of g.

    Requires: the derivative of f at relaxed samples. Cost: two evaluations of f per sample, one of them with its derivative; three
    with independent noise. When: f at relaxed samples is close to what it is at hard ones.

    Arguments:
        temperature: the initial T, positive.
        eta: the initial scale of the control variate.
        coupled: whether z and z~ share their noise, as in both papers' experiments.
        num_samples: K, samples per example.

    Raises:
        InputError: the temperature is not positive.

    References:
        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, *REBAR: Low-variance, unbiased gradient estimates for discrete latent
        variable models*, 2017. https://arxiv.org/abs/1703.07370

    Example:
        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> estimate = dvae.estimators.REBAR(num_samples=100_000)(lambda b: b.sum(-1), q)
        >>> estimate.grad.allclose(torch.tensor(0.25), atol=0.02)
        True
    """

    reference = "Tucker et al. 2017"
    latents = (Bernoulli, Categorical, PlackettLuce)
    differentiates = True
    evaluations_per_sample: int | None = 2

    def __init__(self, temperature: float = 0.5, eta: float = 1.0, *, coupled: bool = True, num_samples: int = 1) -> None:
        super().__init__(num_samples)
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.eta = nn.Parameter(torch.tensor(float(eta)))
        self.coupled = coupled
        self.num_noise = 1 if coupled else 2
        self.evaluations_per_sample = 2 if coupled else 3

    def control_variate(self, f: Objective, q: Discrete, z: Tensor, context: Tensor | None) -> Tensor:
        """c(z), [K, B]."""
        temperature = self.log_temperature.exp()
        return f(q.soft(z, temperature), temperature=temperature)

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        def c(z: Tensor) -> Tensor:
            return self.control_variate(f, q, z, context)

        value, derivative = value_and_derivative(c, draw.z)
        if self.coupled:
            path = q.path(draw.z, derivative)
        else:
            logits = q.logits.expand_as(draw.z)
            conditional, back = pull_back(lambda logits: type(q)(logits).conditional(draw.b, draw.noise[1]), logits)
            _, back_z = pull_back(lambda logits: type(q)(logits).relaxed(draw.noise[0]), logits)
            value, conditional_derivative = value_and_derivative(c, conditional.detach())
            path = back_z(derivative) - back(conditional_derivative)
        return controlled(q, draw.b, draw.value, self.eta * value, self.eta * path)

    def summary(self) -> dict[str, Tensor]:
        return {"temperature": self.log_temperature.detach().exp(), "eta": self.eta.detach()}


class RELAX(REBAR):
    r"""REBAR with a free network r added to the control variate.

    .. math:: c_\phi(z) = f(\text{soft}(z, T)) + r_\rho(x, z)

    Requires: the derivative of f at relaxed samples; with ``black_box=True`` f's values. Cost: as :class:`REBAR`, and r; with
    ``black_box=True`` one evaluation of f per sample, and r. When: there is time to learn r.

    Arguments:
        black_box: c = r alone, for an f without a derivative.
        network: r, a module ``(flat z [*, B, D], context [*, B, C] or None) -> [*, B]``, or its config; by default a
            :class:`dvae.networks.SurrogateNetwork` of ``depth`` hidden ReLU layers of ``hidden`` units, or a
            :class:`dvae.networks.SpatialSurrogate` for a model whose code is on a grid. A config may leave
            ``num_latents`` and ``num_context`` open.
        weight_decay: of r's weights, in the units of the paper's code, which squares the gradient of the mean over a batch of 24
            and averages over batch and latents; here it is multiplied by 24^2 D to weigh the same against the sum over latents.
        temperature, eta, coupled, num_samples: as in :class:`REBAR`.

    Raises:
        InputError: an argument is outside its range.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018. https://arxiv.org/abs/1711.00123

    Example: the parity of three bits, which has no derivative. One backward gives the logits the gradient of the objective, and r
    that of the variance.

        >>> logits = torch.zeros(1, 3, requires_grad=True)
        >>> estimator = dvae.estimators.RELAX(black_box=True, hidden=16)
        >>> estimate = estimator(lambda b: b.sum(-1) % 2, dvae.latents.Bernoulli(logits))
        >>> estimate.loss(logits).backward()
        >>> torch.equal(logits.grad, -estimate.grad), estimator.eta.grad.shape
        (True, torch.Size([]))
    """

    reference = "Grathwohl et al. 2018"

    def __init__(
        self,
        temperature: float = 0.5,
        eta: float = 1.0,
        *,
        black_box: bool = False,
        network: nn.Module | dict[str, Any] | None = None,
        hidden: int = 200,
        depth: int = 2,
        weight_decay: float = 0.001,
        coupled: bool = True,
        num_samples: int = 1,
    ) -> None:
        super().__init__(temperature, eta, coupled=coupled, num_samples=num_samples)
        if hidden < 1 or depth < 1:
            raise InputError(f"hidden and depth must be at least 1, got {hidden} and {depth}")
        if weight_decay < 0:
            raise InputError(f"weight_decay must not be negative, got {weight_decay}")
        self.black_box = black_box
        if black_box:
            self.evaluations_per_sample = 1
            self.differentiates = False
            del self.log_temperature  # r takes z as it is: there is no relaxation to tune
        self.hidden, self.depth = hidden, depth
        self.weight_decay = weight_decay
        self.surrogate = Surrogate(network, hidden, depth)
        self.network: nn.Module | None = None if self.surrogate.waits else self.surrogate.made()

    def require_given(self) -> None:
        if not self.black_box:
            raise InputError("RELAX needs f at relaxed samples, but only values from outside are given: pass black_box=True")

    def build(self, num_latents: int, num_context: int) -> None:
        if self.network is None:
            self.network = self.surrogate.made(num_latents=num_latents, num_context=num_context)

    def control_variate(self, f: Objective, q: Discrete, z: Tensor, context: Tensor | None) -> Tensor:
        assert self.network is not None
        surrogate = self.network(q.flat(z), context)
        return surrogate if self.black_box else super().control_variate(f, q, z, context) + surrogate

    def penalty(self, num_latents: int) -> Tensor | float:
        return weight_penalty(self.network, self.weight_decay, num_latents)

    def summary(self) -> dict[str, Tensor]:
        return {"eta": self.eta.detach()} if self.black_box else super().summary()
