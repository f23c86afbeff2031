"""Estimators side by side at a run's model."""

from __future__ import annotations

from collections.abc import Sequence

from dvae.lab.evaluate import Mean
from dvae.lab.report.effort import Effort, Progress, figure_cell, name_of_first, of_each
from dvae.lab.report.runs import Run
from dvae.lab.variance import VarianceReport, applicable_estimators, compare_variance
from dvae.report.charts import variance_chart
from dvae.report.page import Block, Cell, Chart, Table

__all__ = ["variance"]

_BESIDE = ("REINFORCE", "LOO", "DisARM", "REBAR", "RELAX", "Reparameterization", "LAX")
_COLUMNS = ("run", "estimator", "logits", "encoder", "evaluations of f", "encoder, times these", "ms of a draw", "encoder, times s")


def variance(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """Charts of the variance of estimators' gradients, and one table of all."""
    rows: list[list[Cell]] = []

    def measure(run: Run) -> list[Block]:
        opened = run.opened
        model = opened.latent_model
        own = type(model.estimator).__name__
        asked = effort.estimators
        names = [name for name in applicable_estimators(model.latent.family) if name in (own, *_BESIDE)] if asked is None else asked
        reports = compare_variance(
            model,
            opened.data,
            names,
            num_draws=effort.variance_draws,
            phi_steps=effort.phi_steps,
            seed=effort.seed,
            progress=lambda name: progress(f"{run.label}: variance, {name} is measured"),
        )
        ordered, name = sorted(reports, key=lambda report: report.encoder), name_of_first(run)
        rows.extend(_cells(name, report, own) for report in ordered)
        alt = "; ".join(f"{report.estimator} {report.encoder:.2f} ± {report.encoder_error:.2f}" for report in ordered)
        return [Chart(name, variance_chart(reports), f"ln of the variance of the encoder's gradient: {alt}")]

    charts, *notes = of_each(runs, progress, "variance", measure)
    draws, steps = effort.variance_draws, effort.phi_steps
    title = f"ln of the gradient's variance, {draws} draws, control variates fitted for {steps} steps; ± standard error"
    return [charts, *([Table(title, _COLUMNS, rows)] if rows else []), *notes]


def _cells(run: str, report: VarianceReport, own: str) -> list[Cell]:
    remarks = [*([] if report.unbiased else ["biased"]), *(["trained with it"] if report.estimator == own else [])]
    return [
        Cell(run),
        Cell(report.estimator + (f" ({', '.join(remarks)})" if remarks else "")),
        figure_cell(Mean(report.logits, report.logits_error), 2),
        figure_cell(Mean(report.encoder, report.encoder_error), 2),
        Cell(str(report.evaluations), report.evaluations),
        figure_cell(report.encoder_per_evaluation, 2),
        figure_cell(report.milliseconds, 1),
        figure_cell(report.encoder_per_second, 2),
    ]
