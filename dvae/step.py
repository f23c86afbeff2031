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
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.func import functional_call

from dvae.estimators.base import Draw, Objective
from dvae.latents import Latent

if TYPE_CHECKING:
    from dvae.models import DiscreteVAE

__all__ = ["Layer", "StepOutput", "step_loss"]


class Layer(NamedTuple):
    """One stochastic layer's distribution and its sample, hard or relaxed; ``z`` is the continuous sample behind it."""

    q: Latent
    z: Tensor
    sample: Tensor


class StepOutput(NamedTuple):
    """What a step computes.

    loss: scalar, with the graph.
    metrics: detached scalars for the log.
    gradients: each layer's estimate of d objective / d logits, the logits' shape, detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    gradients: list[Tensor]


def step_loss(model: DiscreteVAE, x: Tensor, noise: Sequence[Tensor]) -> StepOutput:
    """The loss of one step.

    Arguments:
        model: encoder, decoder, prior (theta) and one estimator per stochastic layer (phi).
        x: batch [B, num_pixels].
        noise: for each layer, uniforms [num_noise, K, B, D].
    """
    layers = model.rollout(x, noise)
    terms = model.terms(x, layers)
    value = model.objective(terms)
    combined = model.estimators[0].combine(value)
    surrogate, variance = combined.mean(), value.new_zeros(())
    metrics = {
        "elbo": terms.elbo.mean().detach(),
        "reconstruction": terms.reconstruction.mean().detach(),
        "kl": terms.kl.mean().detach(),
    }
    if model.estimators[0].multi_sample:
        metrics["importance_weighted_bound"] = surrogate.detach()
    gradients = []
    theta = {f"model.{name}": tensor.detach() for name, tensor in model.named_theta()}
    known = [Layer(layer.q.detach(), layer.z.detach(), layer.sample) for layer in layers]
    for index, estimator in enumerate(model.estimators):
        q, z, sample = known[index]
        draw = Draw(noise[index], z, sample, value.detach())
        f = _frozen_objective(model, theta, x, noise, known[: index + 1])
        grad = estimator.estimate(f, q, draw, model.context(x, known[:index]))
        logits = layers[index].q.logits
        if logits.dim() < grad.dim():
            grad = grad.mean(0)
        event = tuple(range(-q.event_dim, 0))
        second_moment = grad.square().sum(event).mean()
        surrogate = surrogate + (grad.detach() * logits).sum(event).mean()
        variance = variance + second_moment + estimator.penalty(math.prod(logits.shape[-q.event_dim :]))
        suffix = f"_{index + 1}" if len(layers) > 1 else ""
        gradients.append(grad.detach())
        metrics[f"gradient_second_moment{suffix}"] = second_moment.detach()
        metrics.update({f"{name}{suffix}": scalar for name, scalar in estimator.summary().items()})
    return StepOutput(variance - surrogate, metrics, gradients)


def _frozen_objective(
    model: DiscreteVAE, theta: dict[str, Tensor], x: Tensor, noise: Sequence[Tensor], known: Sequence[Layer]
) -> Objective:
    """f of the last known layer: those before it stay at their samples, those after it are sampled on the way."""
    continuation = _Continuation(model)
    *before, layer = known

    def f(sample: Tensor, temperature: Tensor | None = None) -> Tensor:
        layers = [*before, Layer(layer.q, layer.z, sample)]
        return functional_call(continuation, theta, (x, noise, layers, temperature), tie_weights=False)

    return f


class _Continuation(nn.Module):
    """A module around the model, because ``functional_call`` calls ``forward``."""

    def __init__(self, model: DiscreteVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Sequence[Tensor], layers: Sequence[Layer], temperature: Tensor | None) -> Tensor:
        layers = self.model.rollout(x, noise, layers, temperature)
        return self.model.objective(self.model.terms(x, layers))
