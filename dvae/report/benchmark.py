"""The benchmark's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae.files import save_figure

if TYPE_CHECKING:
    from dvae.lab.benchmark import StepTime

__all__ = ["plot_growth", "plot_times"]


def plot_times(times: Sequence[StepTime], path: str | Path) -> Path:
    """Bars of the bare step for each estimator and mode, per model, with a mark at the floor; a PNG file."""
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    names, modes = list(dict.fromkeys(t.estimator for t in times)), list(dict.fromkeys(t.mode for t in times))
    figure = Figure(figsize=(7, 1.2 + 0.22 * len(names) * len(modes)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(modes)
    for number, mode in enumerate(modes):
        own = {t.estimator: t for t in times if t.mode == mode}
        places = [names.index(name) + (number - (len(modes) - 1) / 2) * height for name in own]
        count = max(t.models for t in own.values())
        label = mode if count == 1 else f"{count} {mode}, each"
        axis.barh(places, [t.bare / t.models for t in own.values()], height, label=label, color=f"C{number}")
        floors = [t.floor / t.models for t in own.values()]
        axis.plot(floors, places, "k|", markersize=8, label="matrix products alone" if number == 0 else None)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("ms a step of one model")
    axis.legend()
    return save_figure(figure, path)


def plot_growth(growth: dict[str, dict[str, dict[int, float]]], path: str | Path) -> Path:
    """The bare step's time against batch size, D, K, layers and replicas; a PNG file.

    Arguments:
        growth: for each quantity and estimator, milliseconds at its values.
        path: where.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(growth), 3.2), layout="constrained")
    for axis, (quantity, curves) in zip(figure.subplots(1, len(growth), squeeze=False)[0], growth.items(), strict=True):
        for estimator, points in curves.items():
            axis.plot(list(points), list(points.values()), "o-", label=estimator)
        axis.set_xlabel(quantity)
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
    figure.axes[0].set_ylabel("ms a step")
    figure.axes[0].legend()
    return save_figure(figure, path)
