"""The variance laboratory's figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae.files import save_figure

if TYPE_CHECKING:
    from dvae.lab.variance import VarianceReport

__all__ = ["plot_variance"]


def plot_variance(reports: Sequence[VarianceReport], path: str | Path) -> Path:
    """The log-variances of all estimators as points with error bars: logits, encoder, encoder per evaluation and per second."""
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    ordered = sorted(reports, key=lambda report: -report.encoder)
    names = [report.estimator + ("" if report.unbiased else " (biased)") for report in ordered]
    panels = {
        "logits": ([r.logits for r in ordered], [r.logits_error for r in ordered]),
        "encoder": ([r.encoder for r in ordered], [r.encoder_error for r in ordered]),
        "encoder, times evaluations of f": ([r.encoder_per_evaluation for r in ordered], [r.encoder_error for r in ordered]),
        "encoder, times seconds": ([r.encoder_per_second for r in ordered], [r.encoder_error for r in ordered]),
    }
    figure = Figure(figsize=(14, 1.5 + 0.3 * len(ordered)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (title, (values, errors)) in zip(axes, panels.items(), strict=True):
        colours = ["C0" if report.unbiased else "C7" for report in ordered]
        axis.hlines(range(len(names)), min(values) - 0.5, values, colors=colours, linewidth=1, alpha=0.4)
        axis.errorbar(values, range(len(names)), xerr=errors, fmt="none", ecolor="black", elinewidth=1)
        axis.scatter(values, range(len(names)), c=colours, zorder=3)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    figure.supxlabel("natural logarithm of the gradient's variance")
    return save_figure(figure, path)
