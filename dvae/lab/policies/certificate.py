"""Certificates of policy gradients: random tabular decision processes, whose gradient is a sum over trajectories."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dvae.config import import_class
from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.latents import Categorical, Gaussian, Latent, Spec
from dvae.networks import Linear
from dvae.rl.arms import ARMS, Networks
from dvae.rl.environments import Vectorized, require_gymnasium
from dvae.rl.module import PolicyGradient
from dvae.rl.rollouts import collect

if TYPE_CHECKING:
    import gymnasium

__all__ = ["PolicyReport", "TabularProcess", "certify_arm", "certify_policy", "vector_environment"]

_NUM_STATES, _HORIZON = 3, 3
_AGENTS, _ENVIRONMENTS = 50, 100
_FITS = 60
_NETWORKS = Networks((16, 16), "tanh")


class PolicyReport(NamedTuple):
    """What :func:`certify_policy` found on one process.

    name, latent: of the estimator, and of its actions' family.
    unbiased: whether it says so.
    process: how it was acted in.
    max_z: the largest |z| over the policy's parameters.
    bias: length of (mean gradient - exact gradient) relative to the exact one's.
    variance: of one rollout's gradient, summed over parameters.
    """

    name: str
    latent: str
    unbiased: bool
    process: str
    max_z: float
    bias: float
    variance: float


class TabularProcess(NamedTuple):
    """A decision process of 3 states and at most 3 steps, with rewards and transitions drawn at random.

    start: [S]. transition: [S, A, S], what is missing to 1 ends the episode. reward: [S, A].
    """

    start: Tensor
    transition: Tensor
    reward: Tensor

    @classmethod
    def random(cls, num_actions: int, seed: int) -> TabularProcess:
        """One for a seed."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        transition = torch.softmax(1.5 * normal(_NUM_STATES, num_actions, _NUM_STATES + 1), -1)[..., :_NUM_STATES]
        return cls(torch.softmax(normal(_NUM_STATES), -1), transition, 1 + 2 * normal(_NUM_STATES, num_actions))

    @property
    def num_actions(self) -> int:
        """A."""
        return self.reward.shape[1]

    def expected_return(self, probs: Tensor) -> Tensor:
        """The expected sum of rewards, by enumeration of all trajectories; differentiable in ``probs`` [horizon, S, A]."""
        total = probs.new_zeros(())
        for states in itertools.product(range(_NUM_STATES), repeat=_HORIZON):
            for actions in itertools.product(range(self.num_actions), repeat=_HORIZON):
                probability = self.start[states[0]]
                for step, (state, action) in enumerate(zip(states, actions, strict=True)):
                    probability = probability * probs[step, state, action]
                    # Whatever comes after, which the enumeration adds up to the probability of going on.
                    total = total + probability * self.reward[state, action] / self._ways(step)
                    if step + 1 < _HORIZON:
                        probability = probability * self.transition[state, action, states[step + 1]]
        return total

    def _ways(self, step: int) -> int:
        """How many trajectories of the enumeration share their steps up to this one."""
        return (_NUM_STATES * self.num_actions) ** (_HORIZON - 1 - step)

    def values(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """V [horizon + 1, S] and Q [horizon, S, A] of a policy."""
        value, values, actions = self.reward.new_zeros(_NUM_STATES), [], []
        values.append(value)
        for step in reversed(range(_HORIZON)):
            action = self.reward + self.transition @ value
            value = (probs[step] * action).sum(-1)
            values.append(value)
            actions.append(action)
        return torch.stack(values[::-1]), torch.stack(actions[::-1])

    def visits(self, probs: Tensor, num_steps: int) -> Tensor:
        """Expected number of real steps at each (time, state) in so many of an environment, with a dummy after each episode."""
        now, dummy = torch.zeros(_HORIZON, _NUM_STATES, dtype=torch.float64), self.start.new_zeros(())
        now[0] = self.start
        total = torch.zeros_like(now)
        for _ in range(num_steps):
            total = total + now
            going = torch.zeros_like(now)
            for step in range(_HORIZON - 1):
                going[step + 1] = torch.einsum("s,sa,sat->t", now[step], probs[step], self.transition)
            ended = now.sum() - going.sum()
            going[0] = going[0] + dummy * self.start
            now, dummy = going, ended
        return total


def vector_environment(process: TabularProcess, num_envs: int, continuous: bool) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Many environments of one process, which reset on the step after an episode's last.

    An observation is one-hot over (time, state); so is the last one, for which no time is left. Continuous actions are numbers, of
    which the interval says which action it is: below 0, and between whole numbers from there on.
    """
    gym = require_gymnasium()
    size = (_HORIZON + 1) * _NUM_STATES
    cumulative, rewards = process.transition.cumsum(-1).numpy(), process.reward.numpy()
    start = process.start.cumsum(-1).numpy()

    class Processes(gym.vector.VectorEnv):  # type: ignore[misc, name-defined]
        metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

        def __init__(self) -> None:
            self.num_envs = num_envs
            self.single_observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)
            discrete = gym.spaces.Discrete(process.num_actions)
            self.single_action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32) if continuous else discrete
            self.time, self.state = np.zeros(num_envs, int), np.zeros(num_envs, int)
            self.over = np.zeros(num_envs, bool)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self._begin(np.ones(num_envs, bool))
            return self._observation(), {}

        def _begin(self, which: np.ndarray) -> None:
            drawn = (self.np_random.random(num_envs)[:, None] > start[:-1]).sum(1)
            self.state[which], self.time[which], self.over[which] = drawn[which], 0, False

        def _observation(self) -> np.ndarray:
            place = self.time * _NUM_STATES + self.state
            return (place[:, None] == np.arange(size)).astype(np.float32)

        def step(self, actions: np.ndarray) -> Any:
            resets = self.over.copy()
            index = np.clip(np.ceil(actions[:, 0]), 0, process.num_actions - 1).astype(int) if continuous else actions
            reward = np.where(resets, 0.0, rewards[self.state, index])
            following = (self.np_random.random(num_envs)[:, None] > cumulative[self.state, index]).sum(1)
            self.time = self.time + 1
            ends = (following == _NUM_STATES) | (self.time == _HORIZON)
            self.state = np.where(following == _NUM_STATES, self.state, following)
            self._begin(resets)
            self.over = ends & ~resets
            return self._observation(), reward, self.over.copy(), np.zeros(num_envs, bool), {}

    return Processes()


class _Tabular(nn.Module):
    """V as a table over one-hot observations, which is not trained."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, observation: Tensor) -> Tensor:
        return (observation * self.table).sum(-1, keepdim=True)


def certify_policy(
    estimator: Callable[[], GradientEstimator],
    *,
    latent: type[Latent] = Categorical,
    num_actions: int = 3,
    num_episodes: int = 200_000,
    seed: int = 0,
    environments: type[Vectorized] = Vectorized,
) -> list[PolicyReport]:
    r"""Measure the bias of a policy gradient against enumeration of all trajectories of a random process.

    The gradient is that of the whole update: environments, rollouts, credit, estimator, policy. Twice: by whole episodes, credited
    with returns; and by a fixed number of steps with resets in between, credited with returns that are bootstrapped with the
    policy's exact values, which is unbiased too. Phi is trained first.

    Arguments:
        estimator: makes one that has not been used.
        latent: Categorical, or Gaussian, of which an interval is an action.
        num_actions: A, from 2 to 4.
        num_episodes: about how many are drawn, for each of the two.
        seed: of process, policy and draws.
        environments: how vector environments are stepped.

    Returns:
        a report for each of the two; ``max_z`` is about 4 at most where the gradient is unbiased.

    Raises:
        InputError: the estimator does not take a given reward, or not this kind of action.
    """
    if not 2 <= num_actions <= 4:
        raise InputError(f"num_actions must be from 2 to 4, got {num_actions}")
    process, continuous = TabularProcess.random(num_actions, seed), issubclass(latent, Gaussian)
    weights = 0.7 * torch.randn(
        2 if continuous else num_actions,
        (_HORIZON + 1) * _NUM_STATES,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    policy_weights = weights.clone().requires_grad_()
    probs = _probabilities(policy_weights, num_actions, continuous)
    value, action_value = process.values(probs.detach())
    reports = []
    for whole in (True, False):
        if whole:
            objective = process.expected_return(probs)
        else:
            visits = process.visits(probs.detach(), 2 * _HORIZON + 1)
            objective = (visits[..., None] * probs * action_value).sum() / visits.sum()
        (exact,) = torch.autograd.grad(objective, policy_weights, retain_graph=True)
        model = PolicyGradient(
            estimator(),
            policy=_linear(weights),
            value=None if whole else _Tabular(value.flatten().float()),
            num_observations=weights.shape[1],
            latent=latent,
            num_latents=1,
            num_classes=None if continuous else num_actions,
            num_seeds=_AGENTS,
            discount=1.0,
            credit="returns" if whole else "bootstrapped",
            seed=seed,
        )
        stepped = environments(vector_environment(process, _AGENTS * _ENVIRONMENTS, continuous), seed)
        reports.append(_report(model, stepped, exact, max(2, num_episodes // (_AGENTS * _ENVIRONMENTS)), whole))
    return reports


def certify_arm(name: str, *, num_actions: int = 3, num_episodes: int = 200_000, seed: int = 0) -> list[PolicyReport]:
    """Certify an arm of :data:`dvae.rl.ARMS`, or an estimator by its import path, with every kind of action that it takes.

    Arguments:
        name: of the arm, or the path of a class.
        num_actions, num_episodes, seed: as of :func:`certify_policy`.

    Raises:
        InputError: there is no such arm, or the estimator takes no kind of action.
    """
    if name not in ARMS and "." not in name:
        raise InputError(f"estimators must be out of {', '.join(ARMS)} or import paths, got {name}")
    reports: list[PolicyReport] = []
    reason = ""
    for latent in (Categorical, Gaussian):
        spec = Spec(latent, 1, num_actions if latent is Categorical else None)

        def made(spec: Spec = spec) -> GradientEstimator:
            if name in ARMS:
                return ARMS[name].estimator(spec, _NETWORKS)
            return import_class(name, GradientEstimator, "estimators")()

        try:
            made().require_support(latent)
        except InputError as error:
            reason = str(error)
            continue
        reports += certify_policy(made, latent=latent, num_actions=num_actions, num_episodes=num_episodes, seed=seed)
    if not reports:
        raise InputError(reason)
    return [own._replace(name=name) for own in reports]


def _linear(weights: Tensor) -> nn.Module:
    policy = Linear(weights.shape[1], weights.shape[0])
    with torch.no_grad():
        _weights(policy).copy_(weights)
    return policy


def _weights(policy: nn.Module) -> nn.Parameter:
    return next(policy.parameters())


def _probabilities(weights: Tensor, num_actions: int, continuous: bool) -> Tensor:
    """The policy's, [horizon, S, A]."""
    logits = weights.T[: _HORIZON * _NUM_STATES].unflatten(0, (_HORIZON, _NUM_STATES))
    if not continuous:
        return torch.softmax(logits, -1)
    mean, log_std = logits.unbind(-1)
    bounds = torch.arange(num_actions - 1, dtype=logits.dtype)
    below = torch.special.ndtr((bounds - mean[..., None]) / log_std[..., None].exp())
    below = torch.cat([torch.zeros_like(below[..., :1]), below, torch.ones_like(below[..., :1])], -1)
    return below.diff(dim=-1)


def _report(model: PolicyGradient, environments: Vectorized, exact: Tensor, num_rollouts: int, whole: bool) -> PolicyReport:
    optimizer = torch.optim.Adam(model.agents.estimator.parameters(), lr=0.02) if model.agents.has_phi else None
    total = torch.zeros(_AGENTS, *exact.shape, dtype=torch.float64)
    squares, size = torch.zeros((), dtype=torch.float64), 0.0
    for number in range(-_FITS if optimizer is not None else 0, num_rollouts):
        environments.restart()
        rollout = collect(environments, model.act, _AGENTS, None if whole else 2 * _HORIZON + 1)
        model.differentiate(rollout)
        gradient = -_gradient(model)
        if number < 0 and optimizer is not None:
            optimizer.step()
        elif number >= 0:
            # A mean over a random number of steps is a ratio, whose own bias goes as one over that number: times it there is none.
            counted = torch.ones(_AGENTS) if whole else rollout.counts.sum((1, 2))
            total += counted[:, None, None] * (gradient - exact)
            squares += (gradient - exact).square().sum() / _AGENTS
            size += counted.double().mean().item()
        model.iteration += 1
    apart = total / size
    mean, error = apart.mean(0), apart.std(0) / _AGENTS**0.5
    z = torch.where(error > 0, mean / error.clamp(min=1e-300), 0.0)
    name = "whole episodes, returns" if whole else "fixed steps, bootstrapped with the exact V"
    bias = mean.norm() / exact.norm()
    estimator = model.agents.estimator
    about = (type(estimator).__name__, model.agents.action.family.__name__, estimator.unbiased)
    return PolicyReport(*about, name, z.abs().max().item(), bias.item(), (squares / num_rollouts - mean.square().sum()).item())


def _gradient(model: PolicyGradient) -> Tensor:
    """Of what is minimised with respect to the policy's weights, [R, *weights]."""
    gradient = _weights(model.agents.policy).grad
    assert gradient is not None
    return gradient.double()
