r"""The training step as one pure function of parameters, batch and noise.

.. math::
    \text{surrogate} = \overline{f(b)} + \sum_l \overline{\langle g_l, \text{logits}_l \rangle}, \qquad
    \text{loss} = -\text{surrogate} + \sum_l \overline{\lVert g_l \rVert^2}

with g_l detached in the surrogate and free of theta in the variance, so that one backward gives theta the ELBO's gradient and phi
the gradient of the variance (E[g]^2 does not depend on phi, so the second moment's gradient is the variance's).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dvae.estimators import Draw
from dvae.estimators.base import Objective
from dvae.functional import frozen, value_and_gradients
from dvae.models import VAE, Layer
from dvae.objectives import ELBOTerms

__all__ = ["StepOutput", "step_loss"]


class StepOutput(NamedTuple):
    """What a step computes.

    loss: scalar, with the graph.
    metrics: detached scalars for the log.
    gradients: each layer's estimate of d objective / d logits, the logits' shape, detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    gradients: list[Tensor]


def step_loss(model: VAE, x: Tensor, noise: Sequence[Tensor]) -> StepOutput:
    """The loss of one step.

    Arguments:
        model: encoder, decoder, prior (theta) and one estimator per stochastic layer (phi).
        x: batch [B, num_pixels].
        noise: for each layer, uniforms [num_noise, K, B, D]; then the prior's, where it has samples to move on.

    Raises:
        InputError: an estimator and the model do not fit; see :meth:`dvae.estimators.GradientEstimator.estimate`.
    """
    if model.training and len(noise) > model.num_layers:
        model.prior.advance(noise[model.num_layers])
    layers = model.rollout(x, noise)
    # One evaluation of f at the hard samples is the value of every layer's draw.
    terms, value, derivative, surrogate = (
        _differentiated(model, x, layers) if _brings_derivative(model) else _evaluated(model, x, layers)
    )
    variance: Tensor | None = None
    reconstruction, kl = terms.reconstruction.detach().mean(), terms.kl.detach().mean()
    metrics = {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
    if model.estimators[0].multi_sample:
        metrics["importance_weighted_bound"] = surrogate.detach()
    gradients = []
    known = [Layer(layer.q.detach(), layer.z.detach(), layer.sample) for layer in layers]
    for index, estimator in enumerate(model.estimators):
        q, z, b, _ = known[index]
        f = _LayerObjective(model, x, noise, known[: index + 1])
        grad = estimator.estimate(f, q, Draw(noise[index], z, b, value, derivative), model.context(x, known[:index]))
        logits = layers[index].q.logits
        event = tuple(range(-q.event_dim, 0))
        second_moment = grad.square().sum(event).mean()
        surrogate = surrogate + (grad.detach() * logits).sum(event).mean()
        variance = second_moment if variance is None else variance + second_moment
        penalty = estimator.penalty(math.prod(logits.shape[-q.event_dim :]))
        variance = variance if isinstance(penalty, float) and penalty == 0 else variance + penalty
        suffix = f"_{index + 1}" if len(layers) > 1 else ""
        gradients.append(grad.detach())
        metrics[f"gradient_second_moment{suffix}"] = second_moment.detach()
        metrics.update({f"{name}{suffix}": scalar for name, scalar in estimator.summary().items()})
    assert variance is not None  # of one layer at least
    return StepOutput(variance - surrogate, metrics, gradients)


class _Evaluation(NamedTuple):
    """f at the hard samples: its terms, value [K, B] and, where it came along, derivative; and what training maximises of it."""

    terms: ELBOTerms
    value: Tensor
    derivative: Tensor | None
    surrogate: Tensor


def _evaluated(model: VAE, x: Tensor, layers: Sequence[Layer]) -> _Evaluation:
    layers = [layer._replace(direct=model.direct_gradient) for layer in layers]
    terms = model.balanced(model.terms(x, layers), layers[-1].q)
    value = model.objective(terms)
    return _Evaluation(terms, value, None, model.estimators[0].combine(value).mean())


def _brings_derivative(model: VAE) -> bool:
    estimator = model.estimators[0]
    # Of several layers each has an f of its own, for it samples those after it anew.
    return model.num_layers == 1 and estimator.derivative_at_sample and not estimator.multi_sample


def _differentiated(model: VAE, x: Tensor, layers: Sequence[Layer]) -> _Evaluation:
    """As :func:`_evaluated`, with f'(b), by the one backward pass that theta's gradient takes anyway."""
    q, z, b, _ = layers[0]

    def value_of(model: VAE, logits: Tensor, sample: Tensor) -> tuple[Tensor, ELBOTerms]:
        evaluation = _evaluated(model, x, [Layer(type(q)(logits), z.detach(), sample)])
        return evaluation.value, evaluation.terms

    # While compiling, no tensor says that a transform differentiates it.
    theta = {name: one for name, one in model.named_theta() if torch.compiler.is_compiling() or one.requires_grad}
    value, terms, by_theta, (by_logits, derivative) = value_and_gradients(model, value_of, theta, q.logits, b)
    pairs = [(q.logits, by_logits), *((theta[name], by_theta[name]) for name in theta)]
    # Of this value, and of the gradient that the pass has found.
    linear = torch.stack([(parameter * slope).sum() for parameter, slope in pairs]).sum() / value.numel()
    return _Evaluation(terms, value, derivative, value.mean() + (linear - linear.detach()))


class _LayerObjective:
    """f of one layer's sample: the layers before it stay at their samples, those after it are sampled on the way."""

    def __init__(self, model: VAE, x: Tensor, noise: Sequence[Tensor], known: Sequence[Layer]) -> None:
        self.model, self.x, self.noise, self.known = model, x, noise, known

    def __call__(self, sample: Tensor, temperature: Tensor | None = None) -> Tensor:
        return self._value(self.model, sample, temperature)

    def frozen(self) -> Objective:
        """The same on detached theta; f does not depend on phi."""
        return frozen(self.model, self._value, self.model.named_theta)

    def _value(self, model: VAE, sample: Tensor, temperature: Tensor | None = None) -> Tensor:
        *before, layer = self.known
        layers = model.rollout(self.x, self.noise, [*before, Layer(layer.q, layer.z, sample)], temperature)
        return model.objective(model.terms(self.x, layers))
