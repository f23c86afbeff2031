"""The arms of an honest comparison of policy gradients, by name; two of them are what was released with the paper, and biased."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from dvae.estimators import LAX, NVIL, REINFORCE, RELAX, Draw, GradientEstimator
from dvae.estimators.base import Objective, value_and_derivative
from dvae.estimators.control_variates import controlled
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
        control, derivative = value_and_derivative(lambda b: self.network(b, context), fresh)
        return controlled(q, draw.b, draw.value, control, q.sample_gradient(fresh, derivative))


class Networks(NamedTuple):
    """Hidden layers of an arm's baseline or surrogate, the same for all arms."""

    hidden: Sequence[int]
    activation: str


class Arm(NamedTuple):
    """What a comparison trains.

    value: whether a value function is fitted to the returns and subtracted.
    estimator: what makes the estimator of the gradient from the kind of action and the sizes of networks.
    """

    value: bool
    estimator: Callable[[Spec, Networks], GradientEstimator]


def _surrogate(latent: Spec, networks: Networks) -> dict[str, Any]:
    """The surrogate on the relaxed action that is one of several, or on the action that is a vector; trained on the variance."""
    kind = "RelaxedSurrogate" if latent.family is Categorical else "ActionSurrogate"
    layers = {"hidden": list(networks.hidden), "activation": networks.activation}
    return {"network": {"class_path": f"dvae.rl.{kind}", "init_args": layers}, "weight_decay": 0.0}


def _state_baseline(latent: Spec, networks: Networks) -> GradientEstimator:
    """A baseline of the state alone, trained on the variance as a surrogate is."""
    return NVIL(networks.hidden, activation=networks.activation, moving_average=False)


ARMS: dict[str, Arm] = {
    "REINFORCE": Arm(False, lambda latent, networks: REINFORCE()),
    "A2C": Arm(True, lambda latent, networks: REINFORCE()),
    "StateBaseline": Arm(False, _state_baseline),
    "RELAX": Arm(False, lambda latent, networks: RELAX(black_box=True, **_surrogate(latent, networks))),
    "LAX": Arm(True, lambda latent, networks: LAX(**_surrogate(latent, networks))),
    "ReleasedRELAX": Arm(False, lambda latent, networks: ReleasedRELAX(**_surrogate(latent, networks))),
    "ReleasedLAX": Arm(True, lambda latent, networks: ReleasedLAX(**_surrogate(latent, networks))),
}
"""What a comparison of policy gradients is made of, by name."""
