"""Figures of policy gradients compared by training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvae.files import save_figure

__all__ = ["ArmCurves", "plot_arms"]

_POINTS = 300
_WINDOW = 100


class ArmCurves(NamedTuple):
    """What is drawn of one arm.

    episodes: of each agent, (reward, steps at its end) of each episode.
    gradient_variance: of each update, of each agent.
    """

    episodes: Sequence[Sequence[Sequence[float]]]
    gradient_variance: Sequence[Sequence[float]]


def plot_arms(arms: Mapping[str, ArmCurves], path: str | Path, solved_at: float | None = None) -> Path:
    """Mean reward of the last 100 episodes against episodes and steps, and the log of the trace of the gradient's covariance.

    Lines are medians over agents, bands go from the lower to the upper quartile. A line ends where an agent's run does.

    Arguments:
        arms: by name.
        path: the PNG file.
        solved_at: drawn as a line.
    """
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    figure = Figure(figsize=(14, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for number, (name, arm) in enumerate(arms.items()):
        style = {"color": f"C{number % 10}", "label": name, "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}
        rewards = [_running_mean(np.array([reward for reward, _ in own])) for own in arm.episodes]
        steps = [np.array([step for _, step in own], float) for own in arm.episodes]
        _draw(axes[0], [(np.arange(1, len(own) + 1, dtype=float), own) for own in rewards], style)
        _draw(axes[1], list(zip(steps, rewards, strict=True)), style)
        variance = np.array(arm.gradient_variance, float)
        if variance.size:
            updates = np.arange(1, len(variance) + 1, dtype=float)
            logs = [np.log(np.maximum(_running_mean(own), 1e-30)) for own in variance.T]
            _draw(axes[2], [(updates, own) for own in logs], style)
    for axis, label in zip(axes, ("episodes", "environment steps", "updates"), strict=True):
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=5)
    if solved_at is not None:
        for axis in axes[:2]:
            axis.axhline(solved_at, color="black", linestyle=":", linewidth=1)
    axes[0].set_ylabel(f"mean reward of {_WINDOW} episodes")
    axes[2].set_ylabel("log trace of the gradient's covariance")
    axes[0].legend()
    return save_figure(figure, path)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Of the last 100 values, or of as many as there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(1, len(values) + 1)
    first = np.maximum(places - _WINDOW, 0)
    return (total[places] - total[first]) / (places - first)


def _draw(axis: Any, lines: Sequence[tuple[np.ndarray, np.ndarray]], style: Mapping[str, Any]) -> None:
    lines = [(x, y) for x, y in lines if len(x)]
    if not lines:
        return
    grid = np.linspace(max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines), _POINTS)
    low, middle, high = np.quantile([np.interp(grid, x, y) for x, y in lines], [0.25, 0.5, 0.75], axis=0)
    axis.plot(grid, middle, **style)
    axis.fill_between(grid, low, high, color=style["color"], alpha=0.2, linewidth=0)
