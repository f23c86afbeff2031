"""Training curves, read from the tables that runs leave."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from dvae.errors import InputError
from dvae.files import save_figure
from dvae.report.folders import read_config, tables_below

__all__ = [
    "Curve",
    "binned",
    "endings",
    "joined",
    "plot_training",
    "reached",
    "read_curves",
    "seconds_per_step",
    "setting_label",
    "visible_range",
]

_NAME = "train/elbo"
# Updates over whose mean a level counts as reached.
_REACHED_OVER = 3000
# Points of a drawn line, each a mean over what was logged there.
_POINTS = 300


class Curve(NamedTuple):
    """A quantity along a run: the training ELBO, in nats, or another.

    steps, seconds: where it was logged; seconds count from the run's start, without the time between a stop and going on.
    elbo, spread: its mean over the replicas, and their standard deviation; 0 for one model.
    """

    steps: list[int]
    seconds: list[float]
    elbo: list[float]
    spread: list[float]


def read_curves(path: str | Path, name: str = _NAME) -> dict[str, Curve]:
    """The training ELBO of a run, of several below a folder the newest; one curve for each setting of a sweep, else one under "".

    A run that went on from another one's checkpoint is drawn from that one's start.

    Arguments:
        path: the run's folder, or one that holds it.
        name: of what is read, another column of metrics.csv, such as ``val/elbo``.

    Raises:
        InputError: there is none.
    """
    rows, members = _logged(path, name)
    curves = {}
    for setting, columns in members.items():
        steps, seconds, elbo, spread = [], [], [], []
        for row in rows:
            values = [row[column] for column in columns if math.isfinite(row.get(column, math.nan))]
            if values:
                steps.append(int(row["step"]))
                seconds.append(row.get("seconds", math.nan))
                elbo.append(fmean(values))
                spread.append(stdev(values) if len(values) > 1 else 0.0)
        if steps:
            curves[setting] = Curve(steps, seconds, elbo, spread)
    if not curves:
        raise InputError(f"run {path} must have logged {name} as a finite number, but never did")
    return curves


def endings(path: str | Path, name: str = _NAME) -> dict[str, list[float]]:
    """What :func:`read_curves` reads, at the end: each replica's mean over the last twentieth of the run, for each setting.

    A replica that failed has none.
    """
    rows, members = _logged(path, name)
    end = [row for row in rows if row["step"] >= 0.95 * rows[-1]["step"]]
    return {
        setting: [
            fmean(row[column] for row in end if column in row) for column in columns if math.isfinite(end[-1].get(column, math.nan))
        ]
        for setting, columns in members.items()
    }


def seconds_per_step(path: str | Path) -> float | None:
    """Seconds of an update, between the first log of the newest run below a folder and its last; None where there is one alone."""
    tables = tables_below(path)
    if not tables:
        return None
    with tables[-1].open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("seconds") and _is_of_training(row)]
    if len(rows) < 2:
        return None
    steps, seconds = ([float(row[name]) for row in (rows[0], rows[-1])] for name in ("step", "seconds"))
    return (seconds[1] - seconds[0]) / (steps[1] - steps[0])


def reached(curve: Curve, level: float) -> tuple[int, float] | None:
    """After how many updates and seconds the mean over the 3,000 updates before was first at a level; None where it never was.

    Of several models it is the mean over those that have not failed.
    """
    interval = curve.steps[1] - curve.steps[0] if len(curve.steps) > 1 else curve.steps[0] + 1
    start, first = 0, curve.steps[0] - interval
    for index, step in enumerate(curve.steps):
        while step - curve.steps[start] >= _REACHED_OVER:
            start += 1
        if step - first >= _REACHED_OVER and fmean(curve.elbo[start : index + 1]) >= level:
            return step + 1, curve.seconds[index]
    return None


def setting_label(setting: Mapping[str, Any]) -> str:
    """A setting of a sweep as text."""
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def _is_of_training(row: Mapping[str, Any]) -> bool:
    return any(value and name.startswith("train/") for name, value in row.items())


def joined(curves: Sequence[Curve]) -> Curve:
    """One curve of models that had a run each, as if they had been trained in turns: the seconds of all, the mean of each step."""
    logged: dict[int, list[tuple[float, float]]] = {}
    for curve in curves:
        for step, seconds, elbo in zip(curve.steps, curve.seconds, curve.elbo, strict=True):
            logged.setdefault(step, []).append((seconds, elbo))
    steps = sorted(logged)
    times = [len(curves) * fmean(seconds for seconds, _ in logged[step]) for step in steps]
    values = [[elbo for _, elbo in logged[step]] for step in steps]
    return Curve(steps, times, [fmean(own) for own in values], [stdev(own) if len(own) > 1 else 0.0 for own in values])


def _logged(path: str | Path, name: str) -> tuple[list[dict[str, float]], dict[str, list[str]]]:
    """The rows of a run that have a quantity, and the columns of each setting's replicas."""
    tables = tables_below(path)
    rows = _rows(tables[-1].parent, name) if tables else []
    if not rows:
        raise InputError(f"run {path} must be a folder in which dvae fit logged {name} to metrics.csv, but there is none")
    return rows, _members(read_config(tables[-1].parent), {column for row in rows for column in row}, name)


def _rows(folder: Path, name: str, seen: frozenset[Path] = frozenset()) -> list[dict[str, float]]:
    """The rows with a quantity, of the run and of those before that it went on from."""
    if folder in seen or not (folder / "metrics.csv").is_file():
        return []
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{column: float(value) for column, value in row.items() if value} for row in csv.DictReader(file) if row.get(name)]
    checkpoint = read_config(folder).get("ckpt_path")
    if not checkpoint:
        return rows
    before = Path(checkpoint).parent.parent
    if not before.is_dir():  # relative to where the command ran, or moved
        before = folder.parent / before.name
    earlier = _rows(before, name, seen | {folder})
    first = min((row["step"] for row in rows), default=math.inf)
    earlier = [row for row in earlier if row["step"] < first]
    offset = earlier[-1].get("seconds", 0.0) if earlier else 0.0
    return [*earlier, *({**row, "seconds": row["seconds"] + offset} if "seconds" in row else row for row in rows)]


def _members(config: Mapping[str, Any], logged: set[str], name: str) -> dict[str, list[str]]:
    """The columns of each setting's replicas."""
    count = sum(column.startswith(f"{name}/") for column in logged)
    if count == 0:
        return {"": [name]}
    sweep = config.get("sweep") or {}
    settings = [setting_label(dict(zip(sweep, values, strict=True))) for values in itertools.product(*sweep.values())]
    size = config.get("replicas") or max(1, count // len(settings))  # a run in Python leaves no config
    members: dict[str, list[str]] = {setting: [] for setting in settings}
    for index in range(len(settings) * size):
        members[settings[index // size]].append(f"{name}/{index}")
    return members


def plot_training(curves: Mapping[str, Curve], path: str | Path, levels: Mapping[str, float] | None = None) -> Path:
    """The training ELBO against steps and against seconds, as a PNG file; each point is a mean over a 300th of the run.

    The band around replicas is a standard deviation between them.

    Arguments:
        curves: by name.
        path: the file.
        levels: horizontal lines by name, such as published figures, nats.
    """
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for number, (name, curve) in enumerate(curves.items()):
        elbo, spread = binned(curve.elbo), binned(curve.spread)
        low, high = ([mean + sign * width for mean, width in zip(elbo, spread, strict=True)] for sign in (-1, 1))
        measures: tuple[Sequence[float], ...] = (curve.steps, curve.seconds)
        for axis, values in zip(axes, measures, strict=True):
            places = binned(values)
            # There are ten colours.
            style = ("-", "--", ":", "-.")[number // 10 % 4]
            axis.plot(places, elbo, style, label=name, color=f"C{number}", marker="." if len(places) < 20 else None)
            if any(spread):
                axis.fill_between(places, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    for number, (name, level) in enumerate((levels or {}).items()):
        for axis in axes:
            axis.axhline(level, color="black", linestyle=("--", ":", "-.")[number % 3], linewidth=1)
        axes[1].annotate(name, (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    for axis, label in zip(axes, ("steps", "seconds"), strict=True):
        axis.set_xlabel(label)
        axis.locator_params(axis="x", nbins=6)
        axis.set_xlim(left=0)
    axes[0].set_ylim(*visible_range(list(curves.values()), list((levels or {}).values())))
    axes[0].set_ylabel("training ELBO (nats)")
    axes[0].legend()
    return save_figure(figure, path)


def visible_range(curves: Sequence[Curve], levels: Sequence[float] = ()) -> tuple[float, float]:
    """The values to draw, lowest and highest, with a margin.

    Arguments:
        curves: at least one.
        levels: values that must be seen, too.
    """
    lowest, highest = list(levels), list(levels)
    for curve in curves:
        values, spread = binned(curve.elbo), binned(curve.spread)
        # A run's first steps, from far below, would leave no room for the rest; of a short run they are what there is.
        lowest.append(min(mean - width for mean, width in list(zip(values, spread, strict=True))[len(values) // 20 :]))
        highest.append(max(mean + width for mean, width in zip(values, spread, strict=True)))
    margin = max(0.03 * (max(highest) - min(lowest)), 0.5)
    return min(lowest) - margin, max(highest) + margin


def binned(values: Sequence[float]) -> list[float]:
    """Values along a run as means over its 300 parts; as they are where there are fewer."""
    size = max(1, len(values) // _POINTS)
    return [fmean(values[start : start + size]) for start in range(0, len(values), size)]
