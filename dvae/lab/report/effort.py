"""What the parts of a page share: how much is computed, and what stands where a run has nothing to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dvae.errors import InputError
from dvae.lab.evaluate import Mean
from dvae.lab.report.runs import Run
from dvae.report.page import Block, Cell, Chart, Gallery, Note, Picture

__all__ = ["Effort", "Progress", "figure_cell", "name_of_first", "of_each"]


class Effort(NamedTuple):
    """How much is computed for a page.

    num_examples: of the evaluation; None for all of the split.
    num_samples, num_draws: of the evaluation, see :func:`dvae.lab.evaluate.evaluate`.
    variance_draws, phi_steps: see :func:`dvae.lab.variance.compare_variance`.
    num_queries: of the search.
    num_codes: examples whose codes are traversed.
    seed: of all noise.
    estimators: whose variance is measured; None for the run's own beside some of the library's.
    """

    num_examples: int | None
    num_samples: int
    num_draws: int
    variance_draws: int
    phi_steps: int
    num_queries: int
    num_codes: int
    seed: int
    estimators: Sequence[str] | None


Progress = Callable[[str], None]


def of_each(runs: Sequence[Run], progress: Progress, what: str, make: Callable[[Run], list[Block]]) -> list[Block]:
    """The blocks of each run, or in their place why it has none."""
    found: list[Block] = []
    notes: list[Block] = []
    for run in runs:
        progress(f"{run.label}: {what}")
        try:
            found += make(run)
        except InputError as error:
            notes.append(Note(run.label, f"has none: {error}"))
    pictures = [block for block in found if isinstance(block, (Picture, Chart))]
    rest = [block for block in found if not isinstance(block, (Picture, Chart))]
    return [*([Gallery(pictures)] if pictures else []), *rest, *notes]


def name_of_first(run: Run) -> str:
    """The run, and which of its models is drawn."""
    first = run.replicas[0]
    if first is None:
        return run.label
    setting = run.setting(first)
    return f"{run.label}, replica {first} of {len(run.replicas)}" + (f" ({setting})" if setting else "")


def figure_cell(value: Any, digits: int) -> Cell:
    """A number, a mean with its error, or a number for each layer; nothing where there is none, or none that is finite."""
    if value is None:
        return Cell("")
    if isinstance(value, list):
        return Cell(", ".join(map(str, value)), float(sum(value)))
    mean, error = value if isinstance(value, Mean) else Mean(float(value), math.nan)
    if not math.isfinite(mean):
        return Cell("")
    digits = digits if abs(mean) < 100 else min(digits, 2)
    return Cell(f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if math.isfinite(error) else ""), mean)
