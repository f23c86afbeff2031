"""``dvae toy``: the toy problems, of one variable and of an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from rich.progress import Progress

from dvae.cli.arguments import Parser, names, numbers, renamed
from dvae.errors import InputError
from dvae.lab.toy import ToyRun, estimator_for, permutation_toy, toy, toy_estimator, write_csv
from dvae.latents import PlackettLuce
from dvae.report.tables import print_table
from dvae.report.toy import plot_curves, plot_surrogates

__all__ = ["main"]

# What belongs to one problem alone, and what is its own where nothing is said.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "bernoulli": {
        "targets": [0.45, 0.499],
        "estimators": ["REINFORCE", "REBAR", "RELAX"],
        "num_seeds": 10,
        "num_iterations": 10_000,
    },
    "permutation": {
        "num_items": 8,
        "epsilon": 0.05,
        "estimators": ["Exact", "REINFORCE", "LOO", "REBAR", "RELAX"],
        "num_seeds": 5,
        "num_iterations": 50_000,
    },
}


def main(command: str, arguments: Sequence[str]) -> int:
    """Run a toy with several estimators, and write its table and figures."""
    args = _filled(_parser(command).parse_args(renamed(arguments, {"seeds": "num_seeds", "iterations": "num_iterations"})))
    torch.set_num_threads(1)  # there is nothing to share between threads in so small a problem
    runs, fixed = _permutation(args) if args.problem == "permutation" else _bernoulli(args)
    column = "epsilon" if args.problem == "permutation" else "t"
    title = f"Expected loss after {args.num_iterations} updates, mean over {args.num_seeds} seeds"
    print_table(title, ["estimator", column, "loss", "std. error", "least", "log-variance"], [_row(run) for run in runs])
    folder = Path(args.out)
    curves, surrogates = plot_curves(runs, folder / "curves.png"), plot_surrogates(fixed, folder / "surrogates.png")
    written = [write_csv(runs, folder / "toy.csv"), curves, *([surrogates] if surrogates else [])]
    print("wrote " + ", ".join(str(path) for path in written))
    return 0


def _parser(command: str) -> Parser:
    parser = Parser(command, "Rerun the RELAX paper's toy problem, or that of orders: loss, gradient variance, control variates.")
    text = "bernoulli (Grathwohl et al. 2018), or permutation, the order of a few items (Gadetsky et al. 2020)"
    parser.add_argument("--problem", type=str, default="bernoulli", help=text)
    text = "such as '[DisARM, LOO(num_samples=4), my_estimators.Mine]'; default: the paper's"
    parser.add_argument("--estimators", type=names, default=None, help=text)
    parser.add_argument("--targets", type=numbers, default=None, help="bernoulli: values of t; default: 0.45,0.499")
    parser.add_argument("--num_items", type=int | None, default=None, help="permutation: items to order, from 2 to 9; default: 8")
    text = "permutation: what the target matrix has above 1/n on its diagonal; default: 0.05"
    parser.add_argument("--epsilon", type=float | None, default=None, help=text)
    text = "independent runs, each with its own noise and its own initial phi; default: 10, or 5 of orders"
    parser.add_argument("--num_seeds", type=int | None, default=None, help=text)
    text = "updates of each; default: 10000, or 50000 of orders"
    parser.add_argument("--num_iterations", type=int | None, default=None, help=text)
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of Adam for the logits and for phi")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run")
    parser.add_argument("--out", type=str, default="toy", help="folder for toy.csv, curves.png and surrogates.png")
    return parser


def _filled(args: Namespace) -> Namespace:
    """The arguments with the problem's defaults; an InputError where one is another problem's."""
    if args.problem not in _DEFAULTS:
        raise InputError(f"problem must be one of {', '.join(_DEFAULTS)}, got {args.problem!r}")
    own = _DEFAULTS[args.problem]
    for problem, defaults in _DEFAULTS.items():
        for name in defaults:
            if name not in own and args[name] is not None:
                raise InputError(f"{name} is for --problem {problem}, got --problem {args.problem}")
    for name, value in own.items():
        if args[name] is None:
            args[name] = value
    return args


def _bernoulli(args: Namespace) -> tuple[list[ToyRun], list[ToyRun]]:
    """The runs, and those at a logit of 0 that learn the control variate alone."""
    for name in args.estimators:
        toy_estimator(name)
    runs, fixed = [], []
    options: dict[str, Any] = {"num_seeds": args.num_seeds, "lr": args.lr, "seed": args.seed}
    for name, target, advance in _each(args, args.targets, "t"):
        runs.append(toy(name, target, num_iterations=args.num_iterations, progress=advance, **options))
        if runs[-1].surrogate is not None:
            steps = max(1, args.num_iterations // 5)
            fixed.append(toy(name, target, num_iterations=steps, batch_size=100, learn_logit=False, **options))
    return runs, fixed


def _permutation(args: Namespace) -> tuple[list[ToyRun], list[ToyRun]]:
    for name in args.estimators:
        estimator_for(PlackettLuce, name)
    options: dict[str, Any] = {"num_seeds": args.num_seeds, "lr": args.lr, "seed": args.seed, "num_iterations": args.num_iterations}
    runs = [
        permutation_toy(name, args.num_items, epsilon, progress=advance, **options)
        for name, epsilon, advance in _each(args, [args.epsilon], "epsilon")
    ]
    return runs, []


def _each(args: Namespace, targets: Sequence[float], symbol: str) -> Iterator[tuple[str, float, Callable[[int], None]]]:
    """Estimators and targets, each with what advances the bar."""
    with Progress(transient=True) as bar:
        task = bar.add_task("running", total=len(targets) * len(args.estimators) * args.num_iterations)
        for target in targets:
            for name in args.estimators:
                bar.update(task, description=f"{name} at {symbol} = {target:g}")
                yield name, target, partial(bar.advance, task)


def _row(run: ToyRun) -> tuple[str, ...]:
    loss = run.loss[-1].double()
    error = loss.std().item() / len(loss) ** 0.5 if len(loss) > 1 else float("nan")
    return (
        run.estimator,
        f"{run.target:g}",
        f"{loss.mean().item():.6f}",
        f"{error:.6f}",
        f"{run.least:.6f}",
        f"{run.log_variance[-1].mean().item():.2f}",
    )
