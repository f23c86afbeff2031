"""An agent: policy, value function and estimator; its losses as functions of what it lived through."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dvae.estimators import GradientEstimator
from dvae.functional import caller
from dvae.latents import Latent, Spec
from dvae.rl.rollouts import Rollout

__all__ = ["Agent", "PhiObjective", "single", "stacked"]

PhiObjective = Literal["step", "episode"]


class Agent(nn.Module):
    """One agent's networks. Several agents are one module whose tensors have a further first dimension, called through vmap.

    Arguments:
        policy: observations [*, O] to flat logits.
        value: observations [*, O] to [*, 1]; None for an agent without.
        estimator: of the policy's gradient, built.
        action: the latent that an action is.
        num_observations: O.
        normalize: whether networks see observations less their mean, over their standard deviation.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(
        self,
        policy: nn.Module,
        value: nn.Module | None,
        estimator: GradientEstimator,
        action: Spec,
        num_observations: int,
        normalize: bool,
    ) -> None:
        super().__init__()
        self.policy, self.value, self.estimator = policy, value, estimator
        self.action, self.normalize = action, normalize
        # Mean and sum of squared deviations of all observations so far.
        self.register_buffer("mean", torch.zeros(num_observations, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(num_observations, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def has_phi(self) -> bool:
        """Whether there is anything to train in the estimator."""
        return any(True for _ in self.estimator.parameters())

    def seen(self, observation: Tensor) -> Tensor:
        """Observations as the networks see them, [*, O]."""
        if not self.normalize:
            return observation
        variance = torch.where(self.count > 1, self.square / self.count.clamp(min=1), 1.0)
        return ((observation - self.mean) / (variance + 1e-8).sqrt()).clamp(-10, 10).to(observation.dtype)

    def distribution(self, observation: Tensor) -> Latent:
        """The policy at observations [*, O]."""
        return self.action(self.policy(self.seen(observation)))

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Samples [*, *sample] from uniform noise of that shape."""
        q = self.distribution(observation)
        return q.hard(q.relaxed(noise))

    def values(self, observation: Tensor) -> Tensor:
        """V, [*]; 0 of an agent without."""
        if self.value is None:
            return observation.new_zeros(observation.shape[:-1])
        return self.value(self.seen(observation)).squeeze(-1)

    def observe(self, rollout: Rollout) -> dict[str, Tensor]:
        """The statistics of observations with those of a rollout added (Chan, Golub & LeVeque 1983), by name of the buffer."""
        weight = (rollout.weight > 0).double()[..., None]
        observation = rollout.observation.double()
        count = weight.sum()
        mean = (weight * observation).sum((0, 1)) / count.clamp(min=1)
        square = (weight * (observation - mean).square()).sum((0, 1))
        total, apart = self.count + count, mean - self.mean
        return {
            "mean": self.mean + apart * count / total.clamp(min=1),
            "square": self.square + square + apart.square() * self.count * count / total.clamp(min=1),
            "count": total,
        }

    def gradients(self, rollout: Rollout, credit: Tensor, noise: Tensor) -> tuple[Tensor, Latent]:
        """An estimate of the return's gradient with respect to the logits of each step, [T N, *logits], and the policy there.

        The relaxed action is drawn given the one taken, at today's parameters; see :meth:`dvae.GradientEstimator.given`.

        Arguments:
            rollout: [T, N, ...].
            credit: what is credited to each action, less the value function's part, [T, N].
            noise: uniform, [num_noise, 1, T N, *sample].
        """
        context = self.seen(rollout.observation).flatten(0, 1)
        q = self.action(self.policy(context))
        action, value = rollout.action.flatten(0, 1), credit.flatten()
        return self.estimator.given(q, action[None], value[None], context, noise=noise), q

    def loss(
        self, rollout: Rollout, credit: Tensor, noise: Tensor, entropy_bonus: Tensor, phi_objective: PhiObjective
    ) -> tuple[Tensor, tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """What policy and phi minimise, neither through the other's part; metrics, and the estimator's buffers after the update.

        Arguments:
            rollout, credit, noise: as of :meth:`gradients`.
            entropy_bonus: weight of the policy's entropy, [].
            phi_objective: see :meth:`second_moment`.
        """
        grad, q = self.gradients(rollout, credit, noise)
        event = tuple(range(1, grad.dim()))
        weight = rollout.weight.flatten()
        entropy = (weight * q.entropy()).sum()
        surrogate = (weight * (grad.detach() * q.logits).sum(event)).sum() + entropy_bonus * entropy
        second_moment = self.second_moment(rollout, grad, phi_objective)
        metrics = {
            "entropy": (entropy / weight.sum()).detach(),
            "gradient_second_moment": second_moment.detach(),
            **self.estimator.summary(),
        }
        loss = second_moment + self.estimator.penalty(grad[0].numel()) - surrogate
        return loss, (metrics, dict(self.estimator.named_buffers()))

    def second_moment(self, rollout: Rollout, grad: Tensor, objective: PhiObjective) -> Tensor:
        r"""What phi minimises, differentiable in it.

        .. math::
            \text{step: } \overline{|g_t|^2}, \qquad
            \text{episode: } \overline{\left| \sum_t \frac{\partial \text{logits}_t}{\partial \theta}^\top g_t \right|^2}

        over steps that count, and over environments: the second is the square of what an episode adds to the policy's gradient
        (Grathwohl et al. 2018).
        """
        weight = rollout.weight.flatten()
        if objective == "step":
            return (weight * grad.square().flatten(1).sum(-1)).sum() / weight.sum()
        parts = self.parameter_gradients(rollout, grad)
        return torch.stack([part.square().sum() for part in parts.values()]).sum() / rollout.weight.shape[1]

    def parameter_gradients(self, rollout: Rollout, grad: Tensor) -> dict[str, Tensor]:
        """What each environment's steps add to the gradient of the policy's parameters, [N, *parameter] by name."""
        parameters = {name: parameter.detach() for name, parameter in self.policy.named_parameters()}
        context = self.seen(rollout.observation)
        logits_of = caller(self.policy, type(self.policy).__call__)
        cotangent = (grad.flatten(1) * (rollout.weight.flatten() > 0)[:, None]).unflatten(0, rollout.weight.shape)

        def of_one(context: Tensor, cotangent: Tensor) -> Any:
            _, pull_back, *_ = torch.func.vjp(lambda parameters: logits_of(parameters, context), parameters)
            return pull_back(cotangent)[0]

        return torch.vmap(of_one, in_dims=(1, 1))(context, cotangent)

    def value_loss(self, rollout: Rollout, target: Tensor) -> Tensor:
        """Half the mean squared error of V, over steps that count."""
        error = (self.values(rollout.observation) - target).square()
        return 0.5 * (rollout.weight * error).sum() / rollout.weight.sum()

    def divergence(self, observation: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
        """Mean KL(before || now) of the policy over steps that count; ``logits`` are those before, [T, N, *logits]."""
        before = self.action.family(logits)
        return (weight * before.kl(self.distribution(observation))).sum() / weight.sum()


def stacked(agents: Sequence[Agent]) -> Agent:
    """Agents of one architecture as one, whose tensors have a first dimension for them; to be called through ``torch.vmap``."""
    together = copy.deepcopy(agents[0])
    _replace(together, [dict(agent.named_modules()) for agent in agents], torch.stack)
    return together


def single(agents: Agent, index: int) -> Agent:
    """One out of :func:`stacked` agents."""
    alone = copy.deepcopy(agents)
    _replace(alone, [dict(agents.named_modules())], lambda tensors: tensors[0][index].clone())
    return alone


def _replace(module: nn.Module, sources: Sequence[dict[str, nn.Module]], function: Any) -> None:
    """Make every tensor of a module that function of the ones that stand in its place in others; what is tied stays so."""
    made: dict[Tensor, Tensor] = {}
    for name, part in module.named_modules():
        for key, old in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            if old not in made:
                values = function([own[name].get_parameter(key).detach() for own in sources])
                made[old] = nn.Parameter(values, requires_grad=old.requires_grad)
            part.register_parameter(key, made[old])
        for key, old in list(part.named_buffers(recurse=False, remove_duplicate=False)):
            if old not in made:
                made[old] = function([own[name].get_buffer(key) for own in sources])
            part.register_buffer(key, made[old])
