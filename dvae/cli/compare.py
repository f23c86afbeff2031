"""``dvae compare``: estimators side by side, from training to the test set."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from dvae.cli import configs, fit
from dvae.cli.arguments import Parser, flags_of, names, parted, quiet_lightning, write_json
from dvae.cli.comparison import Choice, Comparison, Model, Run, choose, stopped, variant
from dvae.cli.errors import UsageError
from dvae.cli.evaluate import CODE_COLUMNS, code_cells, evaluations, with_error
from dvae.cli.runs import require_free
from dvae.data import examples_of
from dvae.errors import InputError, NonFiniteError, did_you_mean
from dvae.lab.evaluate import CodeEvaluation, Evaluation, Mean, open_autoencoder, pooled
from dvae.report.codes import Point, draw_rows, plot_rates, reconstructed_rows
from dvae.report.curves import Curve, plot_training, setting_label
from dvae.report.tables import print_table
from dvae.training.checkpoints import Checkpoint

__all__ = ["main"]

_DESCRIPTION = (
    "Train models with several estimators and seeds, evaluate them on the test set, and print one table. Further flags are those "
    "of dvae fit, such as --config l1 or --model.lr 0.01, and hold for every estimator. Stopped, the same command goes on."
)
# Flags of dvae fit that this command sets itself.
_TAKEN = {
    "replicas": "--seeds says how many models there are of each setting",
    "model.estimator": "--estimators says which there are",
    "ckpt_path": "the same command goes on with what was stopped",
    "trainer.fast_dev_run": "a comparison trains; --max_steps says how long",
    "print_config": "dvae fit --print_config shows the settings",
    # These can come from a config file alone.
    "sweep": "it must be a flag, and in no config",
    "name": "it must be a flag, and in no config",
    "runs": "it must be a flag, and in no config",
}
# What a comparison is read from, and may not be switched off.
_NEEDED = ("trainer.logger", "trainer.enable_checkpointing")
_OF_CODES = ("bits_per_dimension", "rate", "symbol_perplexity", "mse", "psnr", "ssim")
_FIGURES = ("train_elbo", "elbo", "importance_weighted_bound", "log_variance_logits", "log_variance_encoder")


def main(command: str, arguments: Sequence[str]) -> int:
    """Train, evaluate and tabulate."""
    parser = _parser(command)
    own, further = parted(arguments, flags_of(parser))
    args = parser.parse_args(own)
    quiet_lightning()
    further = _for_every_run(further, args.max_steps)
    for name, least in (("seeds", 1), ("num_samples", 1), ("num_draws", 2)):
        if args[name] < least:
            raise InputError(f"{name} must be at least {least}, got {args[name]}")
    if "estimator" in (args.sweep or {}):
        raise InputError("sweep cannot change the estimator: --estimators '[RELAX, REBAR]' says which are compared")
    asked = [*map(choose, args.estimators), *map(variant, args.variants)]
    choices = list({choice.label: choice for choice in asked}.values())
    if not choices:
        raise InputError("estimators must name at least one, such as '[RELAX, REBAR, LOO]', or variants, such as '[spatial_fsq]'")
    parent = Path(args.runs) / "compare" / (args.name or configs.run_name(further))
    comparison = Comparison.open(parent, further, args.seeds, args.sweep or {}, args.apart)
    _rehearse(comparison, choices, flags_of(parser))
    options = {"num_samples": args.num_samples, "num_draws": args.num_draws}
    rows = [row for choice in choices for row in _rows(comparison, choice, options)]
    _print(rows, args.seeds, args.num_samples)
    folder = comparison.folder if args.out is None else Path(args.out)
    write_json(str(folder / "figures.json"), {**comparison.record["arguments"], **options, "rows": [row.as_dict() for row in rows]})
    curves = {row.label: row.curve for row in rows if row.curve is not None}
    drawn = [str(plot_training(curves, folder / "curves.png"))] if curves else []
    drawn += _draw_codes(comparison, rows, folder)
    print(f"wrote {', '.join([str(folder / 'figures.json'), *drawn])}")
    return 0 if all(row.evaluations for row in rows) else 1


def _parser(command: str) -> Parser:
    parser = Parser(command, _DESCRIPTION)
    text = "names, also with arguments, or import paths: '[RELAX, LOO(num_samples=4)]'; the package's config of a name holds"
    parser.add_argument("--estimators", type=names, default=[], help=text)
    text = "configs of further models, each in place of --config, with the same flags: '[spatial_fsq, spatial_lfq, mine.yaml]'"
    parser.add_argument("--variants", type=names, default=[], help=text)
    parser.add_argument("--seeds", type=int, default=3, help="models of each estimator and setting, trained as replicas in one run")
    text = "updates of each run; default: as in dvae fit"
    parser.add_argument("--max_steps", type=int | None, default=None, help=text)
    text = "values of the model's arguments, each combination with every estimator and all seeds: '{lr: [0.001, 0.003]}'"
    parser.add_argument("--sweep", type=dict[str, list[Any]] | None, default=None, help=text)
    parser.add_argument("--num_samples", type=int, default=100, help="of the importance-weighted bound, for each example")
    parser.add_argument("--num_draws", type=int, default=100, help="for the log-variance of the gradient")
    text = "a run of its own for each seed, whose seconds are then those of one model"
    parser.add_argument("--apart", type=bool, nargs="?", const=True, default=False, help=text)
    parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
    text = "of the comparison, by default of its configs; it is in RUNS/compare/NAME/version_K, other arguments in another version"
    parser.add_argument("--name", type=str | None, default=None, help=text)
    text = "folder for figures.json and curves.png; default: the comparison's"
    parser.add_argument("--out", type=str | None, default=None, help=text)
    return parser


def _for_every_run(further: Sequence[str], max_steps: int | None) -> list[str]:
    """The flags of all runs, none of which may be what a comparison decides."""
    given = dict(configs.given(fit.rewritten(further)))
    require_free(given, _TAKEN, "to dvae compare")
    for key in _NEEDED:
        if str(given.get(key)).lower() == "false":
            raise InputError(f"--{key} must not be false in dvae compare, which reads the runs' logs and checkpoints")
    if str(given.get("trainer.devices", 1)) != "1" or str(given.get("trainer.num_nodes", 1)) != "1":
        raise InputError("dvae compare trains on one device; on several, dvae fit --replicas trains one estimator at a time")
    if max_steps is not None and any(argument.partition("=")[0] == "--trainer.max_steps" for argument in further):
        raise InputError(f"--max_steps {max_steps} is --trainer.max_steps, which was given too: leave one out")
    steps = [] if max_steps is None else [f"--trainer.max_steps={max_steps}"]
    return [*further, *steps, "--trainer.devices=1"]


def _rehearse(comparison: Comparison, choices: Sequence[Choice], own_flags: Sequence[str]) -> None:
    """One step of everything, before the first is trained; from here on the comparison has a folder."""
    for choice in choices:
        try:
            comparison.rehearse(choice)
        except UsageError as error:
            unknown = str(error).partition("unknown argument ")[2].split(";")[0]
            hint = did_you_mean(unknown, own_flags) if unknown else ""
            raise UsageError(f"unknown argument {unknown}{hint}" if hint else str(error)) from error
        except (InputError, NonFiniteError) as error:
            raise type(error)(f"{choice.label}: {error}") from error
        _warn_of_warm_up(choice, comparison.further)
    comparison.save()
    print(f"comparison in {comparison.folder}; if it is stopped, the same command goes on from there")


def _warn_of_warm_up(choice: Choice, further: Sequence[str]) -> None:
    given = dict(configs.given(choice.asked(further)))
    updates, steps = str(given.get("trainer.max_steps")), str(given.get("model.phi_warmup_steps"))
    if updates.isdigit() and steps.isdigit() and 0 < int(updates) <= int(steps):
        print(
            f"{choice.label}: the model itself is not trained in {updates} updates, for the first {steps} change its control "
            "variate alone (--model.phi_warmup_steps)",
            file=sys.stderr,
        )


class _Row(NamedTuple):
    """One estimator at one setting, with a model for each seed."""

    choice: Choice
    setting: dict[str, Any]
    models: list[Model]
    curve: Curve | None
    seconds_per_step: float | None

    @property
    def label(self) -> str:
        return ", ".join(part for part in (self.choice.label, setting_label(self.setting)) if part)

    @property
    def evaluations(self) -> list[Evaluation | CodeEvaluation]:
        return [model.evaluation for model in self.models if model.evaluation is not None]

    @property
    def figures(self) -> dict[str, Mean]:
        """Means over seeds with their standard errors; of one model, those over examples, where there are any."""
        found = self.evaluations
        means = pooled(found) if found else {}
        if len(self.models) == len(found) == 1 and isinstance(found[0], Evaluation):
            means |= {"elbo": found[0].elbo, "importance_weighted_bound": found[0].importance_weighted_bound}
        return means

    @property
    def seconds(self) -> float | None:
        return None if self.curve is None else self.curve.seconds[-1]

    def as_dict(self) -> dict[str, Any]:
        figures = {name: {key: _plain(value) for key, value in mean._asdict().items()} for name, mean in self.figures.items()}
        return {
            "estimator": self.choice.label,
            "setting": self.setting,
            "standard_errors_over": "seeds" if len(self.models) > 1 else "examples",
            **{name: figures.get(name) for name in (*_FIGURES, *_OF_CODES)},
            "seconds": self.seconds,
            "seconds_per_step": self.seconds_per_step,
            "models": [model.as_dict() for model in self.models],
        }


def _plain(value: float) -> float | None:
    """A number that JSON has."""
    return value if math.isfinite(value) else None


def _rows(comparison: Comparison, choice: Choice, options: Mapping[str, Any]) -> list[_Row]:
    """Train and evaluate an estimator."""
    reason = comparison.record["apart"][choice.label]
    if reason is not None:
        print(f"{choice.label}: one run after the other, for as replicas it cannot be trained: {reason}", file=sys.stderr)
    models: list[Model] = []
    for run in comparison.runs(choice):
        comparison.train(run)
        models += _measured(comparison, choice, run, options)
    for failure in dict.fromkeys(model.failure for model in models if model.failure is not None):
        print(f"dvae: {choice.label}: {failure}", file=sys.stderr)
    rows = []
    for index, (setting, curve) in enumerate(zip(comparison.settings, comparison.curves(choice), strict=True)):
        own = models[index * comparison.seeds : (index + 1) * comparison.seeds]
        rows.append(_Row(choice, setting, own, curve, comparison.seconds_per_step(choice)))
    return rows


def _measured(comparison: Comparison, choice: Choice, run: Run, options: Mapping[str, Any]) -> list[Model]:
    """The models of a run that is at its end, evaluated unless they have been before."""
    known = comparison.models(run, options)
    if known is not None:
        return known
    checkpoint = Checkpoint.open(comparison.folder / run.name)
    failed, path = stopped(checkpoint), str(checkpoint.path)
    sound = [replica for replica in checkpoint.replicas if replica not in failed]
    with Progress(transient=True) as bar:
        found = evaluations(checkpoint, sound, bar, trust=comparison.trusts(choice, checkpoint), **options)
    figures = dict(zip(sound, found, strict=True))
    models = [
        Model(figures[replica], path, None)
        if replica in figures
        else Model(None, path, f"replica {replica} stopped at iteration {failed[replica]}, for its loss was not finite")
        for replica in checkpoint.replicas
    ]
    comparison.keep(run, options, models)
    return models


_COLUMNS = ("train", "test", "bound ({})", "logits", "encoder", "seconds")


def _print(rows: Sequence[_Row], seeds: int, num_samples: int) -> None:
    settings = list(rows[0].setting)
    table = []
    for row in rows:
        figures = row.figures
        cells = [_cell(figures[name]) if name in figures else "" if figures else "failed" for name in _FIGURES]
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        table.append((row.choice.label, *(str(value) for value in row.setting.values()), *cells, seconds))
    title = "ELBO in training and on test, importance-weighted bound, log-variance of the gradient;\nseconds of the run"
    print_table(title, ["", *settings, *(column.format(num_samples) for column in _COLUMNS)], table)
    if any("psnr" in row.figures for row in rows):
        _print_codes(rows)
    print("one seed: standard errors over examples" if seeds == 1 else f"standard errors: over {seeds} seeds")


def _print_codes(rows: Sequence[_Row]) -> None:
    settings = list(rows[0].setting)
    table = []
    for row in rows:
        seconds = row.seconds_per_step
        speed = "" if seconds is None else f"{1000 * seconds:.0f}"
        table.append((row.choice.label, *(str(value) for value in row.setting.values()), *code_cells(row.figures), speed))
    print_table("codes and reconstructions on test;\nmilliseconds of a step", ["", *settings, *CODE_COLUMNS, "ms"], table)


def _draw_codes(comparison: Comparison, rows: Sequence[_Row], folder: Path) -> list[str]:
    """The figure of rate and distortion and the picture of reconstructions; none where the data are no images of levels."""
    measured = {row.label: row.figures for row in rows if "psnr" in row.figures and "rate" in row.figures}
    if not measured:
        return []
    points = {name: Point(*figures["rate"], *figures["psnr"]) for name, figures in measured.items()}
    drawn = [plot_rates(points, folder / "rate_distortion.png")]
    models = {}
    for row in rows:
        first = next((model for model in row.models if model.checkpoint is not None and model.evaluation is not None), None)
        if row.label in measured and first is not None and first.checkpoint is not None:
            checkpoint = Checkpoint.open(first.checkpoint)
            replica = checkpoint.replicas[row.models.index(first) % len(checkpoint.replicas)]
            models[row.label] = open_autoencoder(checkpoint, trust=comparison.trusts(row.choice, checkpoint), replica=replica)
    data = next(iter(models.values()))[1]
    images = examples_of(data, "test").some(_PICTURED)
    pictures = reconstructed_rows({name: model for name, (model, _, _) in models.items()}, images)
    return [str(path) for path in (*drawn, draw_rows(pictures, folder / "reconstructions.png"))]


_PICTURED = 10  # images in a row


def _cell(mean: Mean) -> str:
    return with_error(mean) if math.isfinite(mean.standard_error) else f"{mean.mean:.2f}"
