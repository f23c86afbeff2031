"""The variance of policy gradients at a fixed policy: the trace of the covariance of what one rollout adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.latents import Spec
from dvae.rl.agent import Agent, PhiObjective
from dvae.rl.arms import ARMS, Networks
from dvae.rl.data import Rollouts
from dvae.rl.module import PolicyGradient
from dvae.rl.rollouts import Rollout, collect

__all__ = ["ArmVariance", "default_arms", "networks_of", "policy_variance"]


_PAPER = Networks((10, 10), "relu")


class ArmVariance(NamedTuple):
    """One arm's variance.

    arm, phi_objective: which; the objective is None of an arm without phi.
    traces: of the covariance of the policy's gradient over its parameters, of each of the baselines and surrogates that were fitted
        independently. All arms saw the same rollouts.
    """

    arm: str
    phi_objective: str | None
    traces: tuple[float, ...]

    @property
    def log_trace(self) -> tuple[float, float]:
        """Natural logarithm of the mean trace, and its standard error."""
        traces = torch.tensor(self.traces, dtype=torch.float64)
        return traces.mean().log().item(), _error(traces / traces.mean())

    def log_ratio(self, other: ArmVariance) -> tuple[float, float]:
        """Mean logarithm of this arm's trace over another's, and its standard error, rollouts being the same."""
        ratio = (torch.tensor(self.traces, dtype=torch.float64) / torch.tensor(other.traces, dtype=torch.float64)).log()
        return ratio.mean().item(), _error(ratio)


def policy_variance(
    agent: Agent,
    data: Rollouts,
    arms: Sequence[str] = ("REINFORCE", "A2C", "StateBaseline", "RELAX"),
    *,
    networks: Networks = _PAPER,
    phi_objectives: Sequence[PhiObjective] = ("step", "episode"),
    discount: float = 0.99,
    num_fits: int = 500,
    num_rollouts: int = 200,
    num_replicates: int = 8,
    lr: float = 0.01,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> list[ArmVariance]:
    """Measure arms at one policy, which stays as it is: baselines and surrogates are fitted to it first.

    All arms see the same rollouts by whole episodes, credited with returns.

    Arguments:
        agent: whose policy it is.
        data: the environment; ``num_envs`` episodes are a rollout.
        arms: names of :data:`dvae.rl.ARMS`.
        networks: hidden layers of baselines and surrogates.
        phi_objectives: what phi is trained on; an arm with phi is measured with each.
        discount: gamma.
        num_fits: rollouts that baselines and surrogates are fitted to, an update each.
        num_rollouts: fresh ones that the variance is measured on, for each replicate.
        num_replicates: independent fits.
        lr: of the fits, with Adam.
        seed: of weights and rollouts.
        progress: called after each rollout.

    Raises:
        InputError: an arm is unknown, or not for these actions, or rollouts are not of whole episodes.
    """
    if data.num_steps is not None:
        raise InputError(f"data must give whole episodes, got num_steps={data.num_steps}")
    unknown = [name for name in arms if name not in ARMS]
    if unknown:
        raise InputError(f"arms must be out of {', '.join(ARMS)}, got {unknown[0]}")
    measured: list[_Measured] = []
    for name in arms:
        for objective in phi_objectives:
            made = _Measured(name, agent, objective, networks, discount, num_replicates, lr, seed)
            measured.append(made)
            if not made.has_phi:
                break
    environments = data.environments([seed + index for index in range(num_replicates)])
    first = measured[0].model
    for number in range(-num_fits, num_rollouts):
        rollout = collect(environments, first.act, num_replicates, None).padded()
        for own in measured:
            own.see(rollout, fits=number < 0)
        if progress is not None:
            progress()
    environments.close()
    return [own.result() for own in measured]


class _Measured:
    def __init__(
        self,
        name: str,
        agent: Agent,
        objective: PhiObjective,
        networks: Networks,
        discount: float,
        num_replicates: int,
        lr: float,
        seed: int,
    ) -> None:
        arm = ARMS[name]
        spec = agent.action
        layers: dict[str, Any] = {"hidden": list(networks.hidden), "activation": networks.activation}
        self.name, self.objective = name, objective
        self.model = PolicyGradient(
            arm.estimator(spec, networks),
            policy=agent.policy,
            value={"class_path": "dvae.networks.MLP", "init_args": layers} if arm.value else None,
            num_observations=len(agent.mean),
            latent=spec.family,
            num_latents=spec.num_variables,
            num_classes=spec.num_classes,
            num_seeds=num_replicates,
            discount=discount,
            normalize=agent.normalize,
            phi_objective=objective,
            seed=seed,
        )
        agents = self.model.agents
        for name_of, buffer in agent.named_buffers(recurse=False):
            agents.get_buffer(name_of).copy_(buffer)
        self.has_phi = agents.has_phi
        fitted = [*agents.estimator.parameters(), *(agents.value.parameters() if agents.value is not None else ())]
        self.optimizer = torch.optim.Adam(fitted, lr=lr) if fitted else None
        self.total: Tensor | float = 0.0
        self.square: Tensor | float = 0.0
        self.count = 0

    def see(self, rollout: Rollout, fits: bool) -> None:
        self.model.differentiate(rollout)
        self.model.iteration += 1
        if fits:
            if self.optimizer is not None:
                self.optimizer.step()
            return
        gradients = [parameter.grad for parameter in self.model.agents.policy.parameters()]
        gradient = torch.cat([own.flatten(1) for own in gradients if own is not None], 1).double()
        self.total, self.square, self.count = self.total + gradient, self.square + gradient.square(), self.count + 1

    def result(self) -> ArmVariance:
        mean = torch.as_tensor(self.total) / self.count
        traces = (torch.as_tensor(self.square) / self.count - mean.square()).sum(1) * self.count / max(self.count - 1, 1)
        return ArmVariance(self.name, self.objective if self.has_phi else None, tuple(traces.tolist()))


def _error(values: Tensor) -> float:
    return values.std().item() / len(values) ** 0.5 if len(values) > 1 else math.nan


def default_arms(action: Spec) -> list[str]:
    """The arms that fit a kind of action; of those that were released with the paper too."""
    fitting = []
    for name, arm in ARMS.items():
        try:
            arm.estimator(action, _PAPER).require_support(action.family)
        except InputError:
            continue
        fitting.append(name)
    return fitting


def networks_of(value: Mapping[str, Any] | None) -> Networks:
    """The hidden layers that a config of a value function names; those of the paper's where it names none."""
    arguments = (value or {}).get("init_args") or {}
    return Networks(tuple(arguments.get("hidden", (10, 10))), arguments.get("activation", "relu"))
