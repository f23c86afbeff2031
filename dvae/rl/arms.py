"""The arms of an honest comparison of policy gradients, by name; two of them are what was released with the paper, and biased."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from dvae.estimators import LAX, NVIL, REINFORCE, RELAX, Draw, GradientEstimator
from dvae.estimators.base import Objective
from dvae.latents import Categorical, Discrete, Gaussian, Spec
from dvae.latents.base import exponential

__all__ = ["ARMS", "Arm", "Networks", "ReleasedLAX", "ReleasedRELAX"]


class _ReleasedCategorical(Categorical):
    """Categorical variables whose conditional sample is that of the paper's released code."""

    def conditional(self, b: Tensor, v: Tensor) -> Tensor:
        # The maximum comes from log p + Gumbel of the drawn class, where it should be from Gumbel(0).
        own = (b * (self.log_probs - exponential(v).log())).sum(-1, keepdim=True)
        below = -((exponential(v).log() - self.log_probs).exp() + (-own).exp()).log()
        return own * b + below * (1 - b)


class ReleasedRELAX(RELAX):
    r"""RELAX for policies as its authors released it, with a conditional sample from the wrong distribution: biased.

    Given the action k, :math:`\tilde z_k` comes from log p_k + Gumbel; the maximum of the z, which it is, is Gumbel(0).

    Arguments:
        as of :class:`dvae.estimators.RELAX`; black box and with independent noise.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018: the released code. https://arxiv.org/abs/1711.00123
    """

    unbiased = False
    latents = (Categorical,)  # type: ignore[assignment]

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "black_box": True, "coupled": False})

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        return super().gradient(f, _ReleasedCategorical(q.logits), draw, context)


class ReleasedLAX(LAX):
    r"""LAX for policies as its authors released it, with the surrogate at a fresh action instead of the one taken: biased.

    What is subtracted, :math:`c(a') \nabla \log \pi(a)`, has mean zero, so the gradient of E[c] that is added stays.

    Arguments:
        as of :class:`dvae.estimators.LAX`.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018: the released code. https://arxiv.org/abs/1711.00123
    """

    unbiased = False

    def gradient(self, f: Objective, q: Gaussian, draw: Draw, context: Tensor | None) -> Tensor:
        fresh = q.relaxed(draw.noise[0])
        surrogate = super().gradient(f, q, draw._replace(b=fresh, value=draw.value * 0), context)
        subtracted = self.network(fresh, context)
        return surrogate + q.score(fresh, subtracted) + q.score(draw.b, draw.value - subtracted)


class Networks(NamedTuple):
    """Hidden layers of an arm's baseline or surrogate, the same for all arms."""

    hidden: Sequence[int]
    activation: str


class Arm(NamedTuple):
    """What a comparison trains.

    value: whether a value function is fitted to the returns and subtracted.
    estimator: what makes the estimator of the gradient from the kind of action and the sizes of networks.
    text: in a few words.
    """

    value: bool
    estimator: Callable[[Spec, Networks], GradientEstimator]
    text: str


def _surrogate(latent: Spec, networks: Networks) -> dict[str, Any]:
    """The surrogate on the relaxed action that is one of several, or on the action that is a vector."""
    hidden, activation = list(networks.hidden), networks.activation
    kind = "RelaxedSurrogate" if latent.family is Categorical else "ActionSurrogate"
    return {"class_path": f"dvae.rl.{kind}", "init_args": {"hidden": hidden, "activation": activation}}


def _relax(latent: Spec, networks: Networks) -> GradientEstimator:
    return RELAX(black_box=True, network=_surrogate(latent, networks), weight_decay=0.0)


def _lax(latent: Spec, networks: Networks) -> GradientEstimator:
    return LAX(network=_surrogate(latent, networks), weight_decay=0.0)


def _released_relax(latent: Spec, networks: Networks) -> GradientEstimator:
    return ReleasedRELAX(network=_surrogate(latent, networks), weight_decay=0.0)


def _released_lax(latent: Spec, networks: Networks) -> GradientEstimator:
    return ReleasedLAX(network=_surrogate(latent, networks), weight_decay=0.0)


def _none(latent: Spec, networks: Networks) -> GradientEstimator:
    return REINFORCE()


def _state(latent: Spec, networks: Networks) -> GradientEstimator:
    return NVIL(networks.hidden, activation=networks.activation, moving_average=False)


ARMS: dict[str, Arm] = {
    "REINFORCE": Arm(False, _none, "no baseline"),
    "A2C": Arm(True, _none, "V, fitted to the returns"),
    "StateBaseline": Arm(False, _state, "a baseline of the state alone, trained on the variance"),
    "RELAX": Arm(False, _relax, "a surrogate of state and relaxed action, trained on the variance"),
    "LAX": Arm(True, _lax, "V, and a surrogate of state and action, trained on the variance"),
    "ReleasedRELAX": Arm(False, _released_relax, "RELAX with the released sampler: biased"),
    "ReleasedLAX": Arm(True, _released_lax, "LAX with the released sampler: biased"),
}
"""What a comparison of policy gradients is made of, by name."""
