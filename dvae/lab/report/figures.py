"""The table of what models are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dvae.errors import InputError
from dvae.lab.evaluate import CodeEvaluation, Evaluation, evaluate, pooled
from dvae.lab.report.effort import Effort, Progress, figure_cell
from dvae.lab.report.runs import Run
from dvae.report.page import Block, Cell, Note, Table

__all__ = ["figures"]


class _Row(NamedTuple):
    """A model of a run and what was measured of it; of several models, which it is."""

    run: Run
    replica: int | None
    setting: str
    method: str
    updates: int | None
    evaluation: Evaluation | CodeEvaluation

    def value(self, name: str) -> Any:
        """A figure; None where the model has none of that name."""
        return self.updates if name == "updates" else getattr(self.evaluation, name, None)


_SAMPLES = "samples of the bound"
_WORTH: dict[str, tuple[str, int]] = {
    "updates": ("updates", 0),
    "training ELBO": ("train_elbo", 2),
    "ELBO": ("elbo", 2),
    "bound": ("importance_weighted_bound", 2),
    _SAMPLES: ("num_samples", 0),
    "reconstruction": ("reconstruction", 2),
    "KL": ("kl", 2),
    "bits per dimension": ("bits_per_dimension", 4),
}
_CODE: dict[str, tuple[str, int]] = {
    "active units": ("active_units", 0),
    "rate (bits)": ("rate", 1),
    "values of a symbol in use": ("symbol_perplexity", 2),
    "MSE": ("mse", 4),
    "PSNR (dB)": ("psnr", 2),
    "SSIM": ("ssim", 4),
    "ln variance, logits": ("log_variance_logits", 2),
    "ln variance, encoder": ("log_variance_encoder", 2),
}
_TABLES = {
    "Models and their means, in nats where no other unit is given": _WORTH,
    "Their codes, reconstructions and gradients": _CODE,
}


def figures(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """The table of all models and of their means over seeds, with what its error bars are over."""
    rows: list[_Row] = []
    notes: list[Block] = []
    for run in runs:
        try:
            rows += _evaluated(run, effort, progress)
        except InputError as error:
            notes.append(Note(run.label, f"is not evaluated: {error}"))
    if not rows:
        return notes
    tables = [_table(rows, title, names) for title, names in _TABLES.items()]
    return [*tables, Note("Of these figures,", _about(rows)), *_special(rows), *notes]


def _evaluated(run: Run, effort: Effort, progress: Progress) -> list[_Row]:
    checkpoint = run.require_checkpoint()
    rows = []
    for place, replica in enumerate(run.replicas):
        if run.evaluated:
            found = run.evaluated[place] if place < len(run.evaluated) else None
            if found is None:
                continue
        else:
            progress(f"{run.label}: evaluating" + ("" if replica is None else f" replica {replica}"))
            found = evaluate(
                checkpoint,
                run.opened.data,
                split=run.source.split,
                num_examples=effort.num_examples,
                num_samples=effort.num_samples,
                num_draws=effort.num_draws,
                seed=effort.seed,
                device=run.source.device,
                trust=run.source.trust,
                replica=replica,
            )
        updates = checkpoint.content.get("global_step")
        rows.append(_Row(run, replica, run.setting(replica), checkpoint.method(replica), updates, found))
    if not rows:
        raise InputError("all of its models failed in training")
    return rows


def _table(rows: Sequence[_Row], title: str, figures: Mapping[str, tuple[str, int]]) -> Table:
    known = {name: own for name, own in figures.items() if any(row.value(own[0]) is not None for row in rows)}
    samples = {row.evaluation.num_samples for row in rows if isinstance(row.evaluation, Evaluation)}
    if len(samples) < 2:  # a column's title says as much
        known.pop(_SAMPLES, None)
    cells: list[list[Cell]] = []
    means = []
    for group in _groups(rows):
        cells += [_cells(row, known.values()) for row in group]
        if len(group) > 1:
            means.append(len(cells))
            cells.append(_mean_cells(group, known.values()))
    titles = [f"bound, {max(samples)} samples" if name == "bound" and len(samples) == 1 else name for name in known]
    return Table(title, ["run", "model", "method", *titles], cells, means)


def _groups(rows: Sequence[_Row]) -> list[list[_Row]]:
    """The models that differ by their seeds alone."""
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.run.group, row.setting), []).append(row)
    return list(groups.values())


def _cells(row: _Row, figures: Iterable[tuple[str, int]]) -> list[Cell]:
    which = ", ".join(part for part in ("" if row.replica is None else f"replica {row.replica}", row.setting) if part)
    own = [figure_cell(row.value(name), digits) for name, digits in figures]
    return [Cell(row.run.label), Cell(which), Cell(row.method), *own]


def _mean_cells(group: Sequence[_Row], figures: Iterable[tuple[str, int]]) -> list[Cell]:
    first, means = group[0], pooled([row.evaluation for row in group])
    which = ", ".join(part for part in (f"mean of {len(group)}", first.setting) if part)
    own = [figure_cell(means.get(name), digits) for name, digits in figures]
    return [Cell(first.run.group), Cell(which), Cell(first.method), *own]


def _about(rows: Sequence[_Row]) -> str:
    """What was measured on what, for whoever reads the error bars."""
    split = rows[0].run.source.split
    numbers = sorted({row.evaluation.num_examples for row in rows})
    examples = " to ".join(f"{number:,}" for number in dict.fromkeys((numbers[0], numbers[-1])))
    text = (
        f"what has ± was measured on {examples} examples of {split}; the standard error of one model is over these examples, that "
        "of a mean is between models. Variances of the gradient are natural logarithms, at one batch."
    )
    compared = list(dict.fromkeys(row.run.group for row in rows if row.run.evaluated))
    return text + (f" dvae compare measured {', '.join(compared)}, with its own settings." if compared else "")


def _special(rows: Sequence[_Row]) -> list[Block]:
    """What a name in the table means for some of the models."""
    loose = [row.run.label for row in rows if isinstance(row.evaluation, Evaluation) and not row.evaluation.is_bound]
    dense = [row.run.label for row in rows if isinstance(row.evaluation, Evaluation) and row.evaluation.is_density]
    coded = [row.run.label for row in rows if isinstance(row.evaluation, CodeEvaluation)]
    said = {
        "the ELBO and the bound are cross-entropies, no bounds, for a Bernoulli likelihood was given grey levels": loose,
        "the ELBO and the bound are of a density and depend on the unit of x": dense,
        "a quantised code has no distribution, and so no ELBO, bound or gradient estimator": coded,
    }
    return [Note(f"{', '.join(dict.fromkeys(names))}:", text) for text, names in said.items() if names]
