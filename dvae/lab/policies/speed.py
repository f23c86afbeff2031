"""Environment steps a second through a whole training loop, and episodes to solve a task, beside another library's."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, median
from typing import Any, NamedTuple

import pytorch_lightning as pl

from dvae.errors import InputError
from dvae.lab.policies.comparison import Solved
from dvae.rl.data import Rollouts
from dvae.rl.module import PolicyGradient

__all__ = ["LoopSpeed", "Solving", "loop_speed", "solving"]

_STEPS, _ENVIRONMENTS = 5, 8
# Its default learning rate, and one that suits CartPole better.
_LRS = (7e-4, 3e-3)
_SOLVED_AT, _MAX_EPISODE_STEPS, _MAX_STEPS = 195.0, 200, 200_000


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
    options = _quiet()
    pl.Trainer(max_steps=3, **options).fit(model, data)

    def run() -> float:
        before, start = sum(model.num_steps), time.perf_counter()
        pl.Trainer(max_steps=num_updates, **options).fit(model, data)
        return (sum(model.num_steps) - before) / (time.perf_counter() - start)

    return run


def _quiet() -> dict[str, Any]:
    shown = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    return {"accelerator": "cpu", **dict.fromkeys(shown, False)}


def _actor_critic(seed: int, max_episode_steps: int | None = None, **options: Any) -> Any:
    try:
        from stable_baselines3 import A2C
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError:
        raise InputError("peers needs stable-baselines3: pip install stable-baselines3, or leave it out (--peers false)") from None
    environments = make_vec_env("CartPole-v1", n_envs=_ENVIRONMENTS, seed=seed, env_kwargs={"max_episode_steps": max_episode_steps})
    return A2C("MlpPolicy", environments, n_steps=_STEPS, device="cpu", seed=seed, **options)


def _stable_baselines(num_updates: int) -> Callable[[], float]:
    model = _actor_critic(0)
    model.learn(3 * _STEPS * _ENVIRONMENTS)

    def run() -> float:
        steps, start = num_updates * _STEPS * _ENVIRONMENTS, time.perf_counter()
        model.learn(steps)
        return steps / (time.perf_counter() - start)

    return run


class Solving(NamedTuple):
    """What :func:`solving` measured of one training loop.

    name, lr: of the loop, and its learning rate.
    episodes, steps: until the task was solved.
    """

    name: str
    lr: float
    episodes: Solved
    steps: Solved


def solving(num_seeds: int = 10, *, peers: bool = True) -> list[Solving]:
    """Episodes and steps until CartPole (of 200 steps, mean of 100 episodes above 195) is solved, with equal settings.

    Advantage actor-critic with stable-baselines3's defaults on both sides: 8 environments, 5 steps an update, two layers of 64 and
    tanh, RMSprop with eps 1e-5, a gradient of norm .5 at most; learning rates .0007, its default, and .003. Initial weights
    are each library's own, there orthogonal.

    Arguments:
        num_seeds: agents of each.
        peers: whether stable-baselines3 takes part.

    Raises:
        InputError: stable-baselines3 is not installed.
    """
    loops = {"dvae": _solved_by_us, **({"stable-baselines3 A2C": _solved_by_stable_baselines} if peers else {})}
    figures = []
    for lr in _LRS:
        for name, loop in loops.items():
            solved = loop(num_seeds, lr)
            counts = [Solved.of([None if own is None else own[part] for own in solved]) for part in (0, 1)]
            figures.append(Solving(name, lr, *counts))
    return figures


def _solved_by_us(num_seeds: int, lr: float) -> list[tuple[int, int] | None]:
    network = {"class_path": "dvae.networks.MLP", "init_args": {"hidden": [64, 64], "activation": "tanh"}}
    model = PolicyGradient(
        policy=network,
        value=network,
        num_seeds=num_seeds,
        credit="bootstrapped",
        lr=lr,
        optimizer={"class_path": "torch.optim.RMSprop", "init_args": {"alpha": 0.99, "eps": 1e-5}},
        gradient_clip_norm=0.5,
        solved_at=_SOLVED_AT,
        stop_when_solved=True,
        max_environment_steps=_MAX_STEPS,
        seed=0,
    )
    data = Rollouts("CartPole-v1", num_envs=_ENVIRONMENTS, num_steps=_STEPS, max_episode_steps=_MAX_EPISODE_STEPS)
    pl.Trainer(max_epochs=-1, **_quiet()).fit(model, data)
    return [None if own is None else (own[0], own[1]) for own in model.solved]


def _solved_by_stable_baselines(num_seeds: int, lr: float) -> list[tuple[int, int] | None]:
    return [_one_solved_by_stable_baselines(seed, lr) for seed in range(num_seeds)]


def _one_solved_by_stable_baselines(seed: int, lr: float) -> tuple[int, int] | None:
    model = _actor_critic(seed, _MAX_EPISODE_STEPS, learning_rate=lr)
    rewards: list[float] = []
    found: list[tuple[int, int]] = []

    def seen(values: dict[str, Any], _: dict[str, Any]) -> bool:
        rewards.extend(info["episode"]["r"] for info in values["infos"] if "episode" in info)
        if len(rewards) >= 100 and fmean(rewards[-100:]) > _SOLVED_AT:
            found.append((len(rewards), model.num_timesteps))
        return not found

    model.learn(_MAX_STEPS, callback=seen)
    return found[0] if found else None
