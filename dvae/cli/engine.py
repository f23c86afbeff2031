"""``dvae fit --engine optuna``: a sweep whose trials workers share, each a run of its own."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jsonargparse import Namespace

from dvae.cli import configs, fit
from dvae.cli.arguments import Parser, add_engine, flags_of, parted, quiet_lightning, write_json
from dvae.cli.comparison import curves_below, file_name, single_flags
from dvae.cli.errors import NothingToDo
from dvae.cli.runs import going_on, require_free
from dvae.errors import InputError, NonFiniteError
from dvae.files import written_whole
from dvae.report.curves import Curve, setting_label
from dvae.report.folders import tables_below
from dvae.report.tables import print_table
from dvae.training.study import Claim, Outcome, Pruning, Study

__all__ = ["main"]

# Flags of dvae fit that an engine's trials set themselves.
_TAKEN = {
    "ckpt_path": "the same command goes on with what was stopped",
    "trainer.fast_dev_run": "a sweep trains",
    "sweep": "it must be a flag, and in no config",
    "replicas": "it must be a flag, and in no config",
    "name": "it must be a flag, and in no config",
    "runs": "it must be a flag, and in no config",
}


def main(command: str, arguments: Sequence[str]) -> int:
    """Work on a sweep until all of its trials are at their end; a table, figures and curves of them."""
    parser = Parser(command, "Train the settings of a sweep, each in a run of its own, together with other workers.")
    add_engine(parser)
    parser.add_argument("--sweep", type=dict[str, Any] | None, default=None)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--runs", type=str, default="runs")
    parser.add_argument("--name", type=str | None, default=None)
    own, further = parted(arguments, flags_of(parser))
    args = parser.parse_args(own)
    quiet_lightning()
    _check(args, further)
    name, metric = args.name or configs.run_name(further), args.metric or "val/importance_weighted_bound"
    settings = sorted((pair for pair in configs.given(fit.rewritten(further)) if pair[0] != "trust"), key=lambda pair: pair[0])
    study = Study(
        args.storage,
        name,
        args.sweep,
        args.replicas,
        trials=args.trials,
        pruner=args.pruner or "none",
        heartbeat=args.heartbeat or 30,
        arguments={"metric": metric, **dict(settings)},
    )
    folder = Path(args.runs) / name
    while (claim := study.claim()) is not None:
        _train(study, claim, further, folder, metric)
    outcomes = study.outcomes()
    _write(study, outcomes, folder, metric)
    return 0 if all(outcome.state in ("complete", "pruned") for outcome in outcomes) else 1


def _check(args: Namespace, further: Sequence[str]) -> None:
    if args.engine != "optuna":
        raise InputError(f"engine must be optuna, got {args.engine}")
    if not args.sweep:
        raise InputError(
            "engine needs sweep, the settings that it shares among workers: --engine optuna --sweep '{lr: [0.001, 0.003]}'"
        )
    if args.storage is None:
        raise InputError("engine needs storage, a database that all workers reach: --storage sqlite:///sweep.db")
    given = dict(configs.given(fit.rewritten(further)))
    require_free(given, _TAKEN, "with --engine")
    for key in ("trainer.logger", "trainer.enable_checkpointing"):
        if str(given.get(key)).lower() == "false":
            raise InputError(f"--{key} must not be false with --engine, which reads the runs' logs and checkpoints")


def _train(study: Study, claim: Claim, further: Sequence[str], folder: Path, metric: str) -> None:
    """Train one trial to its end, from its last checkpoint where there is one."""
    label = _label(claim)
    place = folder / file_name(label)
    checkpoint = going_on(place)
    print(f"trial {claim.number + 1} of {study.size}: {label}{', which goes on' if checkpoint else ''}", flush=True)
    pruning = Pruning(claim, metric)
    flags = [*further, *single_flags(further, claim.setting, claim.seed), f"--runs={folder}", f"--name={place.name}", *checkpoint]
    with study.alive(claim):
        try:
            fit.main("fit", flags, [pruning])
        except NothingToDo:
            pass
        except NonFiniteError as error:
            study.fail(claim, str(error))
            return
        except BaseException:  # it is for another worker, or for this one's next start
            study.release(claim)
            raise
        value = _last(place, metric)
    if value is None or not math.isfinite(value):
        study.fail(claim, f"{metric} is {'not in the logs' if value is None else value}")
    elif not study.finish(claim, value, pruning.pruned):
        print(f"{label}: another worker has taken it over, for this one was not heard of")


def _label(trial: Claim | Outcome) -> str:
    return f"{setting_label(trial.setting)} seed={trial.seed}"


def _last(place: Path, metric: str) -> float | None:
    """What was logged last of a measure, of a run and of those that it went on from."""
    for table in reversed(tables_below(place)):
        with table.open(newline="") as file:
            values = [row[metric] for row in csv.DictReader(file) if row.get(metric)]
        if values:
            return float(values[-1])
    return None


def _write(study: Study, outcomes: Sequence[Outcome], folder: Path, metric: str) -> None:
    """The table on the terminal, ``sweep.json``, ``sweep.csv``, and what ``dvae curves`` reads of the folder."""
    curves = {outcome.number: _curve(folder / file_name(_label(outcome))) for outcome in outcomes}
    ends = {index: None if curve is None else curve.elbo[-1] for index, curve in curves.items()}
    names = list(study.sweep)
    columns = [*names, "seed", metric, "train/elbo", "trial"]
    rows = [
        [*(outcome.setting.get(name) for name in names), outcome.seed, outcome.value, ends[outcome.number], outcome.state]
        for outcome in outcomes
    ]
    print_table(f"{len(rows)} trials of {folder}", ["", *columns], [[str(n + 1), *map(_cell, row)] for n, row in enumerate(rows)])
    for outcome in outcomes:
        if outcome.failure is not None:
            print(f"{_label(outcome)}: {outcome.failure}")
    content = {
        "metric": metric,
        "sweep": study.sweep,
        "replicas": study.replicas,
        "rows": _by_setting(outcomes, ends, folder, metric),
    }
    write_json(str(folder / "sweep.json"), content)
    _write_table(folder / "sweep.csv", columns, rows)
    _write_curves(study, outcomes, curves, folder)
    print(f"wrote {folder / 'sweep.json'}, {folder / 'sweep.csv'}; draw it with: dvae curves {folder}")
    best = max(
        (outcome for outcome in outcomes if outcome.state == "complete"), key=lambda own: own.value or -math.inf, default=None
    )
    if best is not None:
        print(f"best: {_label(best)}; evaluate it with: dvae evaluate {folder / file_name(_label(best))}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return "" if value is None else str(value)


def _by_setting(outcomes: Sequence[Outcome], ends: Mapping[int, float | None], folder: Path, metric: str) -> list[dict[str, Any]]:
    """Rows in the form of ``dvae compare``'s ``figures.json``: a setting each, means over its seeds, and its models."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(json.dumps(outcome.setting), []).append(outcome)
    return [
        {
            "setting": group[0].setting,
            "standard_errors_over": "seeds",
            metric: _mean([own.value for own in group]),
            "train_elbo": _mean([ends[own.number] for own in group]),
            "models": [
                {
                    "seed": own.seed,
                    "state": own.state,
                    metric: own.value,
                    "train_elbo": ends[own.number],
                    "folder": str(folder / file_name(_label(own))),
                    "failure": own.failure,
                }
                for own in group
            ],
        }
        for group in groups.values()
    ]


def _mean(values: Sequence[float | None]) -> dict[str, float | None] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": fmean(known), "standard_error": stdev(known) / len(known) ** 0.5 if len(known) > 1 else None}


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    with written_whole(path) as temporary:
        temporary.write_text(text.getvalue())


def _curve(place: Path) -> Curve | None:
    return next(iter(curves_below(place).values()), None)


def _write_curves(study: Study, outcomes: Sequence[Outcome], curves: Mapping[int, Curve | None], folder: Path) -> None:
    """The trials as the table and the config of one run of replicas, which readers of curves know."""
    rows: dict[int, dict[str, Any]] = {}
    for number, outcome in enumerate(outcomes):
        curve = curves[outcome.number]
        for step, seconds, elbo in [] if curve is None else zip(curve.steps, curve.seconds, curve.elbo, strict=True):
            rows.setdefault(step, {"step": step, "seconds": seconds})[f"train/elbo/{number}"] = elbo
    names = ["step", "seconds", "train/elbo", *(f"train/elbo/{number}" for number in range(len(outcomes)))]
    table = [
        {**rows[step], "train/elbo": fmean(v for k, v in rows[step].items() if k.startswith("train/"))} for step in sorted(rows)
    ]
    _write_table(folder / "metrics.csv", names, [[row.get(name) for name in names] for row in table])
    settings = {"trial": [_label(own) for own in outcomes]} if study.has_ranges else study.sweep
    with written_whole(folder / "config.yaml") as temporary:
        temporary.write_text(json.dumps({"sweep": settings, "replicas": study.replicas}) + "\n")
