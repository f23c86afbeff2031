"""What agents lived through: steps of environments, side by side and one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.rl.environments import Environments, Transition

__all__ = ["Rollout", "collect"]

# Where a rollout waits for the ends of its episodes.
_LONGEST_EPISODE = 100_000
_LENGTHS = [64 * 4**power for power in range(8)]

Act = Callable[[Tensor, int], Tensor]
"""``(observations [R, N, O], step)`` to samples [R, N, *sample]."""


class Rollout(NamedTuple):
    """T steps of N environments of each of R agents.

    observation, next_observation: [R, T, N, O], before and after the step; the latter is an episode's last where it ended.
    action: [R, T, N, *sample], as the policy's latent has it.
    reward: [R, T, N].
    terminated, ended: [R, T, N], whether the episode was over after the step; and whether it was over or cut off.
    episode_reward: [R, T, N], float64, the sum of an episode's rewards at its last step, NaN elsewhere.
    weight: [R, T, N], of a step in the gradient. By whole episodes 1/N, so that the sum over steps estimates the gradient of an
        episode's return; otherwise one over the steps that count. 0 for those that do not count.
    whole: [R], whether it is by whole episodes.
    """

    observation: Tensor
    next_observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    ended: Tensor
    episode_reward: Tensor
    weight: Tensor
    whole: Tensor

    def padded(self) -> Rollout:
        """With steps at the end that do not count, for one of few lengths: 64, 256, 1024, ..."""
        length = self.weight.shape[1]
        more = next(size for size in _LENGTHS if size >= length) - length
        fill = {"episode_reward": float("nan")}

        def pad(name: str, tensor: Tensor) -> Tensor:
            shape = (tensor.shape[0], more, *tensor.shape[2:])
            return torch.cat([tensor, tensor.new_full(shape, fill.get(name, 0))], 1)

        return Rollout(**{name: own if name == "whole" else pad(name, own) for name, own in self._asdict().items()})

    @property
    def counts(self) -> Tensor:
        """[R, T, N], whether it was a step at all."""
        return self.weight > 0


def collect(environments: Environments, act: Act, num_agents: int, num_steps: int | None) -> Rollout:
    """Let agents act.

    Arguments:
        environments: N of each agent, the agents' one after the other.
        act: the policies.
        num_agents: R.
        num_steps: T; by whole episodes where it is None: each environment begins one, and it ends where the longest does.

    Raises:
        InputError: a reward is not finite, or an episode does not end.
    """
    going = np.ones(environments.num_environments, bool)
    if num_steps is None:
        environments.restart()
    steps: list[tuple[np.ndarray, Tensor, Transition, np.ndarray]] = []
    while going.any() and len(steps) != num_steps:
        observation = environments.observation.copy()
        sample = act(torch.from_numpy(observation).unflatten(0, (num_agents, -1)), len(steps)).flatten(0, 1)
        after = environments.step(sample, going)
        ended = after.terminated | after.truncated
        environments.total += after.reward * after.counts
        steps.append((observation, sample, after, np.where(ended, environments.total, np.nan)))
        environments.total[ended] = 0.0
        if num_steps is None:
            going &= ~ended
            if len(steps) == _LONGEST_EPISODE:
                raise InputError(
                    f"an episode has not ended after {_LONGEST_EPISODE} steps, and a rollout by whole episodes waits for its end: "
                    "give the environment max_episode_steps, or num_steps for rollouts of a fixed length"
                )
    observations, samples, transitions, totals = zip(*steps, strict=True)

    def stacked(rows: Sequence[np.ndarray]) -> Tensor:
        """[T, E, ...] as [R, T, N, ...]."""
        return torch.from_numpy(np.stack(rows)).unflatten(1, (num_agents, -1)).movedim(1, 0)

    if not all(np.isfinite(own.observation).all() for own in transitions):
        raise InputError("env must give finite observations, got one that is not")
    reward = stacked([own.reward for own in transitions])
    if not torch.isfinite(reward).all():
        raise InputError(f"env must give finite rewards, got {reward[~torch.isfinite(reward)][0].item()}")
    counts, terminated = stacked([own.counts for own in transitions]), stacked([own.terminated for own in transitions])
    num_parts = counts.shape[2] if num_steps is None else counts.sum((1, 2), keepdim=True).clamp(min=1)
    return Rollout(
        observation=stacked(observations),
        next_observation=stacked([own.observation for own in transitions]),
        action=torch.stack(samples).unflatten(1, (num_agents, -1)).movedim(1, 0),
        reward=reward.float(),
        terminated=terminated,
        ended=terminated | stacked([own.truncated for own in transitions]),
        episode_reward=stacked(totals),
        weight=counts.float() / num_parts,
        whole=torch.full((num_agents,), num_steps is None),
    )
