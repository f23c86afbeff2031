"""``dvae toy``: the RELAX paper's toy problem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from dvae.cli.arguments import Parser, names, numbers, renamed
from dvae.lab.toy import toy, toy_estimator, write_csv
from dvae.report.tables import print_table
from dvae.report.toy import plot_curves, plot_surrogates

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the toy with estimators and targets, and write its table and figures."""
    parser = Parser(command, "Rerun the RELAX paper's toy problem: loss, gradient variance and control variates.")
    text = "names as in dvae certify --all, or import paths: DisARM,my_estimators.Mine"
    parser.add_argument("--estimators", type=names, default=["REINFORCE", "REBAR", "RELAX"], help=text)
    parser.add_argument("--targets", type=numbers, default=[0.45, 0.499], help="values of t: 0.45,0.499")
    skipped: set[str | int] = {"estimator", "target", "batch_size", "learn_logit", "progress"}
    parser.add_function_arguments(toy, as_group=False, skip=skipped)
    parser.add_argument("--out", type=str, default="toy", help="folder for toy.csv, curves.png and surrogates.png")
    args = parser.parse_args(renamed(arguments, {"seeds": "num_seeds", "iterations": "num_iterations"}))
    torch.set_num_threads(1)  # there is nothing to share between threads in so small a problem
    for name in args.estimators:
        toy_estimator(name)
    runs, fixed = [], []
    with Progress(transient=True) as bar:
        task = bar.add_task("running", total=len(args.targets) * len(args.estimators) * args.num_iterations)
        options: dict[str, Any] = {"num_seeds": args.num_seeds, "lr": args.lr, "seed": args.seed}
        for target in args.targets:
            for name in args.estimators:
                bar.update(task, description=f"{name} at t = {target:g}")
                advance = partial(bar.advance, task)
                runs.append(toy(name, target, num_iterations=args.num_iterations, progress=advance, **options))
                if runs[-1].surrogate is not None:
                    steps = max(1, args.num_iterations // 5)
                    fixed.append(toy(name, target, num_iterations=steps, batch_size=100, learn_logit=False, **options))
    rows = []
    for run in runs:
        loss, least = run.loss[-1].double(), min(run.target**2, (1 - run.target) ** 2)
        error = loss.std().item() / len(loss) ** 0.5 if len(loss) > 1 else float("nan")
        rows.append(
            (
                run.estimator,
                f"{run.target:g}",
                f"{loss.mean().item():.6f}",
                f"{error:.6f}",
                f"{least:.6f}",
                f"{run.log_variance[-1].mean().item():.2f}",
            )
        )
    title = f"Expected loss after {args.num_iterations} updates, mean over {args.num_seeds} seeds"
    print_table(title, ["estimator", "t", "loss", "std. error", "least", "log-variance"], rows)
    folder = Path(args.out)
    curves, surrogates = plot_curves(runs, folder / "curves.png"), plot_surrogates(fixed, folder / "surrogates.png")
    written = [write_csv(runs, folder / "toy.csv"), curves, *([surrogates] if surrogates else [])]
    print("wrote " + ", ".join(str(path) for path in written))
    return 0
