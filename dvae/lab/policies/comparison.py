"""Policy gradients compared by training: episodes and steps until a task is solved, of several arms and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, NamedTuple

import pytorch_lightning as pl

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.lab.policies.variance import networks_of
from dvae.rl.arms import ARMS
from dvae.rl.data import Rollouts
from dvae.rl.module import DEFAULT_VALUE, PolicyGradient

__all__ = ["ArmRun", "Solved", "run_arm"]


class Solved(NamedTuple):
    """How long agents took to solve their task.

    mean, std_error: over those that did; NaN where none, or only one, did.
    median: over all, infinite where half of them did not.
    unsolved: how many did not.
    """

    mean: float
    std_error: float
    median: float
    unsolved: int

    @classmethod
    def of(cls, counts: Sequence[float | None]) -> Solved:
        """Of each agent's count, None where it did not."""
        done = [count for count in counts if count is not None]
        error = stdev(done) / math.sqrt(len(done)) if len(done) > 1 else math.nan
        middle = median([math.inf if count is None else count for count in counts])
        return cls(mean(done) if done else math.nan, error, middle, len(counts) - len(done))


class ArmRun(NamedTuple):
    """What one arm did with one learning rate.

    arm, lr: which.
    episodes: of each agent, (reward, the agent's steps at its end) of each episode.
    solved: of each agent, (episodes, steps) until it had solved its task, or None.
    gradient_variance: trace of the gradient's covariance at each update, for each agent.
    """

    arm: str
    lr: float
    episodes: list[list[list[float]]]
    solved: list[list[int] | None]
    gradient_variance: list[list[float]]

    @property
    def episodes_to_solve(self) -> Solved:
        """In episodes."""
        return Solved.of([None if own is None else own[0] for own in self.solved])

    @property
    def steps_to_solve(self) -> Solved:
        """In environment steps."""
        return Solved.of([None if own is None else own[1] for own in self.solved])

    @property
    def last_reward(self) -> Solved:
        """Mean reward of each agent's last 100 episodes."""
        return Solved.of([mean(reward for reward, _ in own[-100:]) if own else None for own in self.episodes])

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(self._asdict()))

    @classmethod
    def read(cls, path: Path) -> ArmRun:
        """What :meth:`write` wrote.

        Raises:
            InputError: it is no such file.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is not the result of an arm: {error}") from None


def run_arm(
    arm: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    lr: float,
    num_seeds: int,
    trainer: Mapping[str, Any] | None = None,
) -> ArmRun:
    """Train one arm with several seeds.

    Arguments:
        arm: a name of :data:`dvae.rl.ARMS`, or the import path of an estimator, which then has no value function beside it.
        model: arguments of :class:`dvae.rl.PolicyGradient`; the arm decides on the estimator and on whether there is a V, whose
            config says how large the networks of all arms are.
        data: arguments of :class:`dvae.rl.Rollouts`.
        lr: learning rate of policy, V and phi.
        num_seeds: agents.
        trainer: arguments of the Trainer.

    Raises:
        InputError: the arm is unknown or does not fit the environment.
    """
    rollouts = Rollouts(**data)
    value = model.get("value", DEFAULT_VALUE)
    chosen: dict[str, Any] = {"estimator": {"class_path": arm}, "value": None}
    if arm in ARMS:
        estimator = ARMS[arm].estimator(rollouts.spaces.action, networks_of(value))
        chosen = {"estimator": estimator, "value": value if ARMS[arm].value else None}
    elif "." not in arm:
        raise InputError(f"estimators must be out of {', '.join(ARMS)} or import paths, got {arm}")
    module = PolicyGradient(**{**model, **chosen, "lr": lr, "value_lr": None, "phi_lr": None, "num_seeds": num_seeds})
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu", "max_epochs": -1}
    pl.Trainer(**{**quiet, **(trainer or {})}).fit(module, rollouts)
    return ArmRun(
        arm,
        lr,
        [[[reward, steps] for reward, steps in own] for own in module.episodes],
        [None if own is None else list(own) for own in module.solved],
        [own.tolist() for own in module.gradient_variance],
    )
