"""The toy's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dvae.files import save_figure

if TYPE_CHECKING:
    from dvae.lab.toy import ToyRun

__all__ = ["plot_curves", "plot_surrogates"]


def plot_curves(runs: Sequence[ToyRun], path: str | Path) -> Path:
    """Expected loss and log-variance against iterations: median over seeds, and a band from the 10th to the 90th percentile."""
    problems = list(dict.fromkeys((run.problem, run.least, run.most) for run in runs))
    figure, axes = _subplots(2, len(problems), (5.5 * len(problems), 7))
    colours = _colours(runs)
    for column, (problem, best, worst) in enumerate(problems):
        for run in (run for run in runs if run.problem == problem):
            for row, values in enumerate((run.loss, run.log_variance)):
                low, middle, high = torch.quantile(values.double(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), dim=1)
                axis = axes[row][column]
                axis.plot(run.iterations, middle, color=colours[run.estimator], label=run.estimator)
                axis.fill_between(run.iterations, low, high, color=colours[run.estimator], alpha=0.2, linewidth=0)
        axes[0][column].axhline(best, color="black", linestyle=":", linewidth=1)
        axes[0][column].set_ylim(best - 0.05 * (worst - best), worst + 0.05 * (worst - best))
        axes[0][column].set_title(problem)
        axes[1][column].set_xlabel("iterations")
        axes[0][column].ticklabel_format(axis="y", useOffset=False)
    axes[0][0].set_ylabel("expected loss (dotted: the least)")
    axes[1][0].set_ylabel("log-variance of the gradient")
    axes[1][0].legend()
    return save_figure(figure, path)


def plot_surrogates(runs: Sequence[ToyRun], path: str | Path) -> Path | None:
    """The best control variates at p = 1/2 beside f(b), along the uniform u behind b and z; None where no estimator has one.

    Arguments:
        runs: made with ``learn_logit=False``.
        path: the PNG file.
    """
    runs = [run for run in runs if run.surrogate is not None]
    if not runs:
        return None
    targets = list(dict.fromkeys(run.target for run in runs))
    figure, axes = _subplots(1, len(targets), (5.5 * len(targets), 4))
    colours = _colours(runs)
    for column, target in enumerate(targets):
        axis = axes[0][column]
        for number, run in enumerate(run for run in runs if run.target == target):
            assert run.surrogate is not None
            middle = run.surrogate.median(1).values.numpy()
            axis.plot(run.u.numpy(), run.surrogate.numpy(), color=colours[run.estimator], alpha=0.2, linewidth=0.7)
            axis.plot(
                run.u.numpy(), middle, color=colours[run.estimator], label=f"{run.estimator}: c(z)", linewidth=2, zorder=3 + number
            )
        axis.step([0, 0.5, 1], [target**2, target**2, (1 - target) ** 2], color="black", label="f(b)")
        axis.set_title(f"t = {target:g}")
        axis.set_xlabel("u, with z = log(u / (1 - u)): p = 1/2")
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.legend()
    return save_figure(figure, path)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _colours(runs: Sequence[ToyRun]) -> dict[str, str]:
    return {name: f"C{index}" for index, name in enumerate(dict.fromkeys(run.estimator for run in runs))}
