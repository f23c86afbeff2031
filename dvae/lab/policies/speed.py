"""Environment steps a second through a whole training loop, beside another library's."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import pytorch_lightning as pl

from dvae.errors import InputError
from dvae.rl.data import Rollouts
from dvae.rl.module import PolicyGradient

__all__ = ["LoopSpeed", "loop_speed"]

_STEPS, _ENVIRONMENTS = 5, 8


class LoopSpeed(NamedTuple):
    """What :func:`loop_speed` measured of one training loop.

    name: of the loop.
    steps_per_second: median over repetitions, of all agents together.
    """

    name: str
    steps_per_second: float


def loop_speed(num_updates: int = 1000, repetitions: int = 3, *, num_seeds: int = 10, peers: bool = True) -> list[LoopSpeed]:
    """Time advantage actor-critic on CartPole, in turns: one agent, many agents at once, and stable-baselines3's A2C.

    All of them with 8 environments of each agent, 5 steps an update, and networks of two layers of 64. Compiling is not counted.

    Arguments:
        num_updates: of each, in each repetition.
        repetitions: turns.
        num_seeds: agents trained at once.
        peers: whether stable-baselines3 takes part.

    Raises:
        InputError: stable-baselines3 is not installed.
    """
    loops: dict[str, Callable[[], float]] = {
        "one agent": _ours(1, num_updates),
        f"{num_seeds} agents": _ours(num_seeds, num_updates),
    }
    if peers:
        loops["stable-baselines3 A2C"] = _stable_baselines(num_updates)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repetitions):
        for name, loop in loops.items():
            times[name].append(loop())
    return [LoopSpeed(name, median(own)) for name, own in times.items()]


def _ours(num_seeds: int, num_updates: int) -> Callable[[], float]:
    data = Rollouts("CartPole-v1", num_envs=_ENVIRONMENTS, num_steps=_STEPS)
    model = PolicyGradient(num_seeds=num_seeds, credit="bootstrapped", compile=True, seed=0)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"enable_checkpointing": False, "accelerator": "cpu", **quiet}
    pl.Trainer(max_steps=3, **options).fit(model, data)

    def run() -> float:
        before, start = sum(model.num_steps), time.perf_counter()
        pl.Trainer(max_steps=num_updates, **options).fit(model, data)
        return (sum(model.num_steps) - before) / (time.perf_counter() - start)

    return run


def _stable_baselines(num_updates: int) -> Callable[[], float]:
    try:
        from stable_baselines3 import A2C
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError:
        raise InputError("peers needs stable-baselines3: pip install stable-baselines3, or leave it out (--peers false)") from None
    model = A2C("MlpPolicy", make_vec_env("CartPole-v1", n_envs=_ENVIRONMENTS), n_steps=_STEPS, device="cpu", seed=0)
    model.learn(3 * _STEPS * _ENVIRONMENTS)

    def run() -> float:
        steps, start = num_updates * _STEPS * _ENVIRONMENTS, time.perf_counter()
        model.learn(steps)
        return steps / (time.perf_counter() - start)

    return run
