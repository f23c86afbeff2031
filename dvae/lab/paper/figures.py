"""What runs in the paper's set-up gave, as files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.lab.evaluate import Evaluation, Mean, plain_of, values_of
from dvae.lab.paper.published import PUBLISHED, ROWS, STEPS, Published
from dvae.report.curves import Curve

__all__ = ["COLUMNS", "Result", "chosen", "read_results", "result_of", "shipped_results", "table_rows", "write_result"]

# The training ELBO at the end is the mean over this share of the steps: 50,000 of 2,000,000.
_END = 1 / 40


class Result(NamedTuple):
    """The figures of one run, nats.

    row, estimator, lr, data, steps: what was trained, with which learning rate, on which file's images ("bundled" for the
        package's), for how many updates.
    train_elbo: the mean over the last fortieth of the steps.
    highest_train_elbo: the highest that was logged, a mean over ``window`` steps.
    valid_elbo, valid_bound, test_elbo, test_bound: of one sample, and of ``num_samples``; of the checkpoint that is best on the
        validation set.
    seconds: of the training.
    """

    row: str
    estimator: str
    lr: float
    data: str
    steps: int
    train_elbo: float
    highest_train_elbo: float
    window: int
    valid_elbo: Mean
    valid_bound: Mean
    test_elbo: Mean
    test_bound: Mean
    num_samples: int
    seconds: float

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.row.replace('/', '_')}_{self.estimator}_{self.lr:g}.json"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return plain_of(self)

    @classmethod
    def of(cls, figures: dict[str, Any]) -> Result:
        """What :meth:`as_dict` gave, back from JSON."""
        return cls(**values_of(figures))


def result_of(
    row: str, estimator: str, lr: float, data: str, steps: int, curve: Curve, valid: Evaluation, test: Evaluation
) -> Result:
    """The result of a run from its curve and its best checkpoint's evaluations."""
    end = [elbo for step, elbo in zip(curve.steps, curve.elbo, strict=True) if step >= curve.steps[-1] * (1 - _END)]
    return Result(
        row,
        estimator,
        lr,
        data,
        steps,
        fmean(end),
        max(curve.elbo),
        curve.steps[-1] - curve.steps[-2] if len(curve.steps) > 1 else steps,
        valid.elbo,
        valid.importance_weighted_bound,
        test.elbo,
        test.importance_weighted_bound,
        valid.num_samples,
        curve.seconds[-1],
    )


def write_result(result: Result, folder: Path) -> Path:
    """Write it below a folder, in place of an earlier one of the same run; returns the file."""
    path = folder / result.name
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    return path


def read_results(folder: Path) -> list[Result]:
    """All results in a folder, none where there is no folder.

    Raises:
        InputError: a file is none of :func:`write_result`.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            results.append(Result.of(json.loads(path.read_text())))
        except (OSError, TypeError, ValueError, AttributeError):
            raise InputError(f"results: {path} is not a result that dvae paper run wrote: move it elsewhere") from None
    return results


def shipped_results() -> list[Result]:
    """Those that came with the package."""
    return read_results(Path(__file__).parent / "results")


def chosen(results: Iterable[Result]) -> dict[tuple[str, str], Result]:
    """The result of each row and estimator: of the longest runs the one whose learning rate is best on the validation set."""
    best: dict[tuple[str, str], Result] = {}
    for result in sorted(results, key=lambda own: (own.steps, own.valid_elbo.mean)):
        best[result.row, result.estimator] = result
    return best


COLUMNS = (
    "row",
    "estimator",
    "steps",
    "lr",
    "train, published",
    "train, highest",
    "train, end",
    "valid, published",
    "valid ELBO",
    "valid bound",
    "test ELBO",
    "test bound",
)


def table_rows(results: Iterable[Result], rows: Iterable[str] = ROWS) -> list[list[str]]:
    """Cells of :data:`COLUMNS`: the published figures beside ours, where there are ours."""
    ours, wanted = chosen(results), set(rows)
    return [
        [row, estimator, *_cells(published, ours.get((row, estimator)))]
        for (row, estimator), published in PUBLISHED.items()
        if row in wanted
    ]


def _cells(published: Published, result: Result | None) -> list[str]:
    train, valid = f"{published.train:.2f}", "" if published.valid is None else f"{published.valid:.2f}"
    if result is None:
        return ["", "", train, "", "", valid, "", "", "", ""]
    reached = (f"{result.highest_train_elbo:.2f}", f"{result.train_elbo:.2f}")
    measured = (result.valid_elbo, result.valid_bound, result.test_elbo, result.test_bound)
    return [_steps(result.steps), f"{result.lr:g}", train, *reached, valid, *map(_with_error, measured)]


def _steps(steps: int) -> str:
    return f"{steps:,}" if steps >= STEPS else f"{steps:,} of {STEPS:,}"


def _with_error(value: Mean) -> str:
    return f"{value.mean:.2f}" + ("" if math.isnan(value.standard_error) else f"±{value.standard_error:.2f}")
