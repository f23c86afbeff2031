"""``dvae report``: a page of HTML that shows runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dvae.cli.arguments import Parser, add_common, device_of, names

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Write the page."""
    from dvae.lab.report import PARTS, report

    parser = Parser(command, "One page of HTML that shows runs, and opens without a network.")
    parser.add_argument("runs", type=str, nargs="+", help="folders of runs, checkpoints, or comparisons of dvae compare")
    text = f"parts to leave out, of {', '.join(PARTS)}: retrieval,variance"
    parser.add_argument("--without", type=names, default=[], help=text)
    text = "whose variance is measured, such as '[LOO(num_samples=4), my_estimators.Mine]'; default: the run's own and some others"
    parser.add_argument("--estimators", type=names, default=None, help=text)
    text = "compute less of everything: 500 examples, 10 samples of the bound, fewer draws; error bars are wider"
    parser.add_argument("--quick", action="store_true", help=text)
    add_common(parser, split=False, seed=False)
    skip: set[str | int] = {"runs", "without", "estimators", "quick", "data", "device", "trust", "progress"}
    parser.add_function_arguments(report, as_group=False, skip=skip)
    args = parser.parse_args(arguments)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        path = report(
            args.runs,
            args.out,
            data=args.data,
            split=args.split,
            quick=args.quick,
            num_examples=args.num_examples,
            num_samples=args.num_samples,
            estimators=args.estimators,
            without=args.without,
            seed=args.seed,
            device=device_of(args.device),
            trust=args.trust,
            progress=lambda line: bar.update(task, description=line),
        )
    print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB")
    return 0
