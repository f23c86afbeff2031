"""Training curves, read from a run's logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from dvae.errors import InputError
from dvae.files import save_figure

__all__ = ["Curve", "plot_training", "read_curve"]


class Curve(NamedTuple):
    """The training ELBO along a run: steps, seconds since the first was logged, and nats."""

    steps: list[int]
    seconds: list[float]
    elbo: list[float]


def read_curve(path: str | Path) -> Curve:
    """The training ELBO that a run logged to TensorBoard; of several runs below a folder, the newest.

    Raises:
        InputError: there is none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]  # slow

    files = sorted(Path(path).rglob("events.*"), key=lambda file: file.stat().st_mtime)
    events = EventAccumulator(str(files[-1]), size_guidance={"scalars": 0}).Reload() if files else None
    if events is None or "train/elbo" not in events.Tags()["scalars"]:
        raise InputError(f"run {path} must be a folder in which dvae fit logged train/elbo, but there is none")
    scalars = events.Scalars("train/elbo")
    start = scalars[0].wall_time
    return Curve([s.step for s in scalars], [s.wall_time - start for s in scalars], [s.value for s in scalars])


def plot_training(curves: Mapping[str, Curve], path: str | Path, levels: Mapping[str, float] | None = None) -> Path:
    """The training ELBO against steps and against seconds, as a PNG file; each point is a mean over a 300th of the run.

    Arguments:
        curves: by name.
        path: the file.
        levels: horizontal lines by name, such as published figures, nats.
    """
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    ends = []
    for name, curve in curves.items():
        size = max(1, len(curve.elbo) // 300)
        starts = range(0, len(curve.elbo) - size + 1, size)
        elbo = [fmean(curve.elbo[start : start + size]) for start in starts]
        ends.append(elbo[-1])
        measures: tuple[Sequence[float], ...] = (curve.steps, curve.seconds)
        for axis, values in zip(axes, measures, strict=True):
            axis.plot([fmean(values[start : start + size]) for start in starts], elbo, label=name)
    for number, (name, level) in enumerate((levels or {}).items()):
        for axis in axes:
            axis.axhline(level, color="black", linestyle=("--", ":", "-.")[number % 3], linewidth=1, label=name)
    for axis, label in zip(axes, ("steps", "seconds"), strict=True):
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
    # The first steps, from far below, would leave no room for the rest.
    axes[0].set_ylim(min(ends) - 20, max([*ends, *(levels or {}).values()]) + 2)
    axes[0].set_ylabel("training ELBO (nats)")
    axes[0].legend()
    return save_figure(figure, path)
