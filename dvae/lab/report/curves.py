"""Quantities along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dvae.lab.report.effort import Effort, Progress
from dvae.lab.report.runs import Run
from dvae.report.charts import Looks, curve_chart
from dvae.report.curves import Curve, joined
from dvae.report.page import Block, Chart, Gallery, Note

__all__ = ["curves"]

_LOGGED = {
    "train/elbo": ("Training ELBO", "nats"),
    "val/elbo": ("ELBO in validation", "nats"),
    "val/importance_weighted_bound": ("Importance-weighted bound in validation", "nats"),
    "train/reconstruction": ("Reconstruction in training", "nats"),
    "train/kl": ("KL in training", "nats"),
    "val/reconstruction": ("Reconstruction in validation", "nats"),
    "val/rate": ("Rate of the code in validation", "bits"),
    "val/log_variance_encoder": ("Variance of the encoder's gradient in validation", "ln of the variance"),
}
_AGAINST_SECONDS = ("train/elbo", "train/reconstruction")


def curves(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """Charts of what was logged, those of one quantity and of the same data together, with bands over replicas."""
    looks = {name: (place, place // 8) for place, name in enumerate(_names(runs))}
    charts: list[Block] = []
    for data, own in _by_data(runs).items():
        of = f", {data}" if len(_by_data(runs)) > 1 else ""
        charts += [chart for name in _LOGGED for chart in _charts(own, name, of, looks)]
    reason = "has no curve: its folder has no metrics.csv with a training loss"
    without: list[Block] = [Note(run.label, reason) for run in runs if not any(map(run.curves, _AGAINST_SECONDS))]
    return [Gallery(charts), *without] if charts else without


def _by_data(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs whose losses can be compared, for their data are the same, by what the data are called."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.data_name, []).append(run)
    return groups


def _names(runs: Sequence[Run]) -> list[str]:
    """Of all lines, in the runs' order."""
    return list(dict.fromkeys(name for run in runs for column in _LOGGED for name in _curves_of([run], column)))


def _charts(runs: Sequence[Run], name: str, of: str, looks: Looks) -> list[Chart]:
    """A quantity by updates, and what is trained by time too."""
    title, unit = _LOGGED[name]
    found = _curves_of(runs, name)
    # A single value, as of a short run's one validation, is in the table of figures.
    if max((len(curve.steps) for curve in found.values()), default=0) < 2:
        return []
    alt = _spoken(title, unit, found)
    charts = [Chart(f"{title} by updates{of}", curve_chart(found, unit, looks=looks), alt)]
    if name == _AGAINST_SECONDS[0] or (name == _AGAINST_SECONDS[1] and not _curves_of(runs, _AGAINST_SECONDS[0])):
        charts.append(Chart(f"{title} by time{of}", curve_chart(found, unit, "seconds", looks), alt))
    return charts


def _curves_of(runs: Sequence[Run], name: str) -> dict[str, Curve]:
    """By run and setting; runs of one group, each of a model, are one curve."""
    groups: dict[str, list[Curve]] = {}
    for run in runs:
        for setting, curve in run.curves(name).items():
            groups.setdefault(f"{run.group}, {setting}" if setting else run.group, []).append(curve)
    return {label: own[0] if len(own) == 1 else joined(own) for label, own in groups.items()}


def _spoken(title: str, unit: str, curves: Mapping[str, Curve]) -> str:
    ends = "; ".join(f"{name} from {curve.elbo[0]:.4g} to {curve.elbo[-1]:.4g}" for name, curve in curves.items())
    return f"{title} ({unit}) along {len(curves)} run{'s' if len(curves) > 1 else ''}: {ends}"
