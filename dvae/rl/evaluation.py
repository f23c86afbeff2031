"""What policies are worth: fresh episodes, and one to look at."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.models.building import require_at_least
from dvae.noise import mixed_seed, noise_seed
from dvae.rl.agent import Agent
from dvae.rl.checkpoints import environments_of, load, open_policies
from dvae.rl.data import Rollouts
from dvae.rl.environments import Separate, Spaces, require_gymnasium
from dvae.rl.module import PolicyGradient
from dvae.rl.rollouts import collect
from dvae.training.checkpoints import Checkpoint

__all__ = ["Film", "PolicyEvaluation", "evaluate", "film"]

# Separates the episodes that are measured from those of training, and from the one that is filmed.
_MEASURED, _FILMED = 3, 4
_SIDE_BY_SIDE = 20
_MOST_FRAMES_PER_SECOND = 25


class PolicyEvaluation(NamedTuple):
    """What :func:`evaluate` measured of one agent.

    reward, reward_error: mean over episodes of the sum of rewards, not discounted, and its standard error.
    length, length_error: of an episode in steps, likewise.
    training_reward: mean of the last 100 episodes of its training; NaN where none ended.
    solved: after how many episodes, and steps, it solved its task in training; None where it did not, or no task was set.
    """

    agent: int
    num_episodes: int
    reward: float
    reward_error: float
    length: float
    length_error: float
    training_reward: float
    solved: tuple[int, int] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; None for NaN."""
        return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in self._asdict().items()}


def evaluate(
    model: PolicyGradient | Checkpoint | str | Path,
    data: Rollouts | None = None,
    *,
    episodes: int = 100,
    agent: int | None = None,
    greedy: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    trust: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[PolicyEvaluation]:
    """Mean reward and length of fresh episodes, of each agent.

    Arguments:
        model: policies; a checkpoint, or a folder that holds some.
        data: environments; the checkpoint's own where it is None.
        episodes: how many of each agent, which begin with seeds of their own.
        agent: which of several, from 0; all of them where it is None.
        greedy: take the most probable action, or the mean, in place of a sample.
        seed: of episodes and actions; the same seed gives the same figures.
        device: where the policy is computed.
        trust: import what the checkpoint names from outside ``dvae`` and gymnasium; importing runs its code.
        progress: called with the number of episodes done and their total.

    Raises:
        InputError: an argument or the checkpoint is not what was expected, there is no such agent, or an episode does not end.

    References:
        Machado, Bellemare, Talvitie, Veness, Hausknecht & Bowling, *Revisiting the Arcade Learning Environment: Evaluation
        Protocols and Open Problems for General Agents*, 2018: learned and evaluated in one number mislead.
    """
    require_at_least(1, episodes=episodes)
    policies, data = _opened(model, data, trust)
    which = range(policies.num_seeds) if agent is None else [agent]
    results = []
    for number, index in enumerate(which):
        alone, done = policies.extract(index).to(device), number * episodes

        def show(count: int, done: int = done) -> None:
            if progress is not None:
                progress(done + count, episodes * len(which))

        rewards, lengths = _episodes(alone, data, episodes, mixed_seed(_MEASURED, seed, index), greedy, show)
        measured = (fmean(rewards), _error(rewards), fmean(lengths), _error(lengths))
        training = (policies.mean_reward(index), policies.solved[index])
        results.append(PolicyEvaluation(index, episodes, *measured, *training))
    return results


def _opened(model: PolicyGradient | Checkpoint | str | Path, data: Rollouts | None, trust: bool) -> tuple[PolicyGradient, Rollouts]:
    if isinstance(model, PolicyGradient):
        if data is None:
            raise InputError("data must be given where the model is no checkpoint: the environments to act in")
        return model, data
    checkpoint = open_policies(model)
    policies = load(checkpoint, trust=trust)
    data = environments_of(checkpoint, trust=trust) if data is None else data
    own = Spaces(policies.agents.mean.shape[-1], policies.agents.action)
    if data.spaces != own:
        raise InputError(
            f"the environment must be such as the policies of {checkpoint.path} were trained in, of {_words(own)}, got "
            f"{data.env!r} of {_words(data.spaces)}"
        )
    return policies, data


def _words(spaces: Spaces) -> str:
    action = spaces.action
    kind = f"{action.num_variables} numbers" if action.num_classes is None else f"one of {action.num_classes}"
    return f"{spaces.num_observations} observations and actions that are {kind}"


def _error(values: list[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _episodes(
    agent: Agent, data: Rollouts, number: int, seed: int, greedy: bool, show: Callable[[int], None]
) -> tuple[list[float], list[float]]:
    """Rewards and lengths of episodes; equally many are begun in each environment, so that short ones are not preferred."""
    environments = data.environments([seed >> 1], min(number, _SIDE_BY_SIDE))
    act = _acting(agent, seed, greedy)
    rewards: list[float] = []
    lengths: list[float] = []
    try:
        while len(rewards) < number:
            rollout = collect(environments, act, 1, None)
            rewards += rollout.episode_reward[0].nan_to_num().sum(0).tolist()
            lengths += rollout.counts[0].sum(0).tolist()
            show(min(len(rewards), number))
    finally:
        environments.close()
    return rewards[:number], lengths[:number]


def _acting(agent: Agent, seed: int, greedy: bool) -> Callable[[Tensor, int], Tensor]:
    """How one agent acts on observations [1, N, O]."""
    generator = torch.Generator().manual_seed(noise_seed(seed))
    device = agent.mean.device

    @torch.no_grad()
    def act(observation: Tensor, step: int) -> Tensor:
        given = observation[0].to(device)
        if greedy:
            return agent.distribution(given).mode()[None].cpu()
        # On the CPU, so that a GPU's episodes are the same.
        noise = torch.rand(given.shape[0], *agent.action.sample_shape, generator=generator)
        return agent.act(given, noise.to(device))[None].cpu()

    return act


class Film(NamedTuple):
    """One episode to look at.

    frames: [H, W, 3], uint8, before each step, or every second one or so of a fast environment.
    frames_per_second: at which it looks as fast as it is.
    reward: sum of its rewards.
    """

    frames: list[np.ndarray]
    frames_per_second: float
    reward: float


def film(
    model: PolicyGradient | Checkpoint | str | Path,
    data: Rollouts | None = None,
    *,
    agent: int = 0,
    greedy: bool = False,
    seed: int = 0,
    trust: bool = False,
) -> Film:
    """One fresh episode as pictures.

    Arguments:
        as of :func:`evaluate`.

    Raises:
        InputError: as :func:`evaluate`, or the environment cannot be drawn.
    """
    policies, data = _opened(model, data, trust)
    kwargs = {**data.env_kwargs, "render_mode": "rgb_array"}
    drawn = Rollouts(data.env, env_kwargs=kwargs, wrappers=data.wrappers, max_episode_steps=data.max_episode_steps)
    environments = drawn.environments([mixed_seed(_FILMED, seed, agent) >> 1], 1)
    assert isinstance(environments, Separate)
    act, env = _acting(policies.extract(agent), seed, greedy), environments.environments[0]
    pace = float(env.metadata.get("render_fps") or 30)
    every = math.ceil(pace / _MOST_FRAMES_PER_SECOND)
    frames: list[np.ndarray] = []

    def acted(observation: Tensor, step: int) -> Tensor:
        if step % every == 0:
            frames.append(_frame(env, data.env))
        return act(observation, step)

    try:
        rollout = collect(environments, acted, 1, None)
    finally:
        environments.close()
    return Film(frames, pace / every, float(rollout.reward.sum()))


def _frame(env: Any, name: Any) -> np.ndarray:
    gym = require_gymnasium()
    try:
        frame = env.render()
    except gym.error.DependencyNotInstalled as error:
        raise InputError(f"to draw env {name!r} needs a package that is not installed: {' '.join(str(error).split())}") from None
    except Exception as error:  # whatever a screen that is not there leads to
        reason = " ".join(str(error).split())[:200]
        hint = "; without a screen MuJoCo draws where MUJOCO_GL is egl or osmesa" if "OpenGL" in reason else ""
        raise InputError(f"env {name!r} cannot be drawn here: {type(error).__name__}: {reason}{hint}") from None
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        raise InputError(f"env {name!r} must draw itself as an array [H, W, 3] (render_mode rgb_array), got {type(frame).__name__}")
    return frame
