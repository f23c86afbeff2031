"""``dvae evaluate``: what checkpoints are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress, TaskID

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of, renamed, write_json
from dvae.lab.evaluate import CodeEvaluation, Evaluation, Mean, evaluate, open_autoencoder, pooled
from dvae.report.tables import labels, print_table
from dvae.training.checkpoints import Checkpoint, find_checkpoint

__all__ = ["CODE_COLUMNS", "code_cells", "evaluations", "main", "with_error"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Evaluate checkpoints and print one table."""
    parser = Parser(command, "ELBO, importance-weighted bound and more of a checkpoint, with error bars.")
    add_checkpoint(parser, several=True)
    add_common(parser, split=False, seed=False)
    parser.add_function_arguments(
        evaluate, as_group=False, skip={"model", "data", "device", "trust", "replica", "features", "progress"}, fail_untyped=False
    )
    text = "a network of your own, by its import path: also print Fréchet distances of samples and reconstructions in its features"
    parser.add_argument("--features", type=str | None, default=None, help=text)
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(renamed(arguments, {"samples": "num_samples"}))
    device = device_of(args.device)
    rows: list[_Row] = []
    with Progress(transient=True) as bar:
        for path in dict.fromkeys(find_checkpoint(given) for given in args.checkpoint):
            checkpoint = Checkpoint.open(path)
            replicas = checkpoint.replicas if args.replica is None else [args.replica]
            results = evaluations(
                checkpoint,
                replicas,
                bar,
                args.data,
                split=args.split,
                num_examples=args.num_examples,
                num_samples=args.num_samples,
                num_draws=args.num_draws,
                seed=args.seed,
                device=device,
                trust=args.trust,
                features=args.features,
            )
            for replica, result in zip(replicas, results, strict=True):
                rows.append(_Row(path, replica, checkpoint.setting(replica), _about(checkpoint, replica), result))
    if len(rows) == 1:
        row = rows[0]
        title = f"{row.path}\n{row.about}\n{row.result.num_examples} examples of {args.split}"
        print_table(title, ["", "mean", "std. error"], row.result.rows())
    elif any(isinstance(row.result, CodeEvaluation) for row in rows):
        _print_codes(rows, args.split)
    else:
        _print_comparison(rows, args.split)
    if args.json is not None:
        figures = [row.as_dict(args.split) for row in rows]
        write_json(args.json, figures[0] if len(figures) == 1 else figures)
    return 0


def evaluations(
    checkpoint: Checkpoint,
    replicas: Sequence[int | None],
    bar: Progress,
    data: str | None = None,
    *,
    split: str = "test",
    trust: bool = False,
    **options: Any,
) -> list[Evaluation | CodeEvaluation]:
    """What :func:`dvae.lab.evaluate.evaluate` finds of models of a checkpoint; the data are read once for all of them."""
    module = open_autoencoder(checkpoint, data, trust=trust, replica=replicas[0])[1]
    results = []
    for replica in replicas:
        name = checkpoint.path.name if replica is None else f"{checkpoint.path.name}, replica {replica}"
        task = bar.add_task(f"{name} on {split}", total=None)

        def show(done: int, total: int | None, task: TaskID = task) -> None:
            bar.update(task, completed=done, total=total)

        results.append(evaluate(checkpoint, module, split=split, trust=trust, replica=replica, progress=show, **options))
    return results


class _Row(NamedTuple):
    """One row of a comparison; of a checkpoint of several models, ``replica`` says which one."""

    path: Path
    replica: int | None
    setting: dict[str, Any]
    about: str
    result: Evaluation | CodeEvaluation

    def as_dict(self, split: str) -> dict[str, Any]:
        which = {} if self.replica is None else {"replica": self.replica, "setting": self.setting}
        return {"checkpoint": str(self.path), **which, "split": split, **self.result.as_dict()}


def _about(checkpoint: Checkpoint, replica: int | None) -> str:
    """A model's estimator, the step of its file and which of several it is."""
    which = "" if replica is None else f"replica {replica}, "
    return f"{which}{checkpoint.method(replica)}, step {checkpoint.content.get('global_step', '?')}"


def _print_codes(rows: Sequence[_Row], split: str) -> None:
    """What models with a bound and without one have in common."""
    paths = list(dict.fromkeys(row.path for row in rows))
    known = dict(zip(paths, labels(paths), strict=True))
    table = []
    for row in rows:
        name = known[row.path] if row.replica is None else f"{known[row.path]} {row.replica}"
        table.append((name, *code_cells(pooled([row.result]))))
    print_table(f"codes and reconstructions on {split}", ["", *CODE_COLUMNS], table)


CODE_COLUMNS = ("bits/dim", "rate (bits)", "values in use", "MSE", "PSNR (dB)", "SSIM")
"""What a table says of a code and its reconstructions, see :func:`code_cells`."""


def code_cells(figures: Mapping[str, Mean]) -> list[str]:
    """Cells of :data:`CODE_COLUMNS`, empty where there is no such figure."""
    digits = {"bits_per_dimension": 3, "rate": 1, "symbol_perplexity": 2, "mse": 1, "psnr": 2, "ssim": 3}
    return [_rounded(figures[name], number) if name in figures else "" for name, number in digits.items()]


def _rounded(mean: Mean, digits: int) -> str:
    value, error = mean
    # Errors of small values, such as of pixels in [0, 1], have their digits further down.
    digits = digits if abs(value) >= 1 else max(digits, 4)
    return f"{value:.{digits}f}" + (f"±{error:.{digits}f}" if math.isfinite(error) else "")


def _print_comparison(rows: Sequence[_Row], split: str) -> None:
    paths = list(dict.fromkeys(row.path for row in rows))
    known = dict(zip(paths, labels(paths), strict=True)) if len(paths) > 1 else dict.fromkeys(paths, "")
    settings = list(dict.fromkeys(name for row in rows for name in row.setting))
    table = []
    for path in paths:
        groups: dict[str, list[_Row]] = {}
        for row in (row for row in rows if row.path == path):
            groups.setdefault(str([row.setting.get(name) for name in settings if name != "seed"]), []).append(row)
            result = row.result
            assert isinstance(result, Evaluation)
            table.append(
                (
                    known[path] if row.replica is None else f"{known[path]} {row.replica}".strip(),
                    *(str(row.setting.get(name, "")) for name in settings),
                    "" if result.train_elbo is None else f"{result.train_elbo:.2f}",
                    with_error(result.elbo),
                    with_error(result.importance_weighted_bound),
                    f"{result.log_variance_logits:.2f}",
                    f"{result.log_variance_encoder:.2f}",
                )
            )
        for group in (group for group in groups.values() if len(group) > 1):
            means = pooled([row.result for row in group])
            table.append(
                (
                    f"{known[path]} mean".strip(),
                    *("" if name == "seed" else str(group[0].setting.get(name, "")) for name in settings),
                    with_error(means["train_elbo"]) if "train_elbo" in means else "",
                    with_error(means["elbo"]),
                    with_error(means["importance_weighted_bound"]),
                    f"{means['log_variance_logits'].mean:.2f}",
                    f"{means['log_variance_encoder'].mean:.2f}",
                )
            )
    samples = rows[0].result.num_samples if isinstance(rows[0].result, Evaluation) else 0
    title = f"ELBO in training and on {split}, importance-weighted bound,\nand log-variance of the gradient"
    print_table(title, ["", *settings, "train", split, f"bound ({samples})", "logits", "encoder"], table)
    if settings:
        print("standard errors: of one model over examples, of a mean between models")


def with_error(mean: Mean) -> str:
    """A mean and its standard error as text."""
    return f"{mean.mean:.2f}±{mean.standard_error:.2f}"
