"""``dvae curves``: how runs went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from dvae.cli.arguments import Parser
from dvae.report.curves import Curve, endings, plot_training, reached, read_curves
from dvae.report.tables import labels, print_table

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Draw the training ELBO of runs and print where they ended."""
    parser = Parser(command, "Plot the training ELBO of runs against steps and seconds.")
    parser.add_argument("runs", type=str, nargs="+", help="folders of runs; of several below one, the newest")
    text = "lines to draw beside, and when the curves reached them: '[-120, -116]', or by name '{published: -111.2}'"
    parser.add_argument("--levels", type=dict[str, float] | list[float] | None, default=None, help=text)
    parser.add_argument("--out", type=str, default="curves.png", help="the PNG file")
    args = parser.parse_args(arguments)
    paths = [Path(run) for run in dict.fromkeys(args.runs)]
    curves, rows = {}, []
    for name, path in zip(labels(paths), paths, strict=True):
        ends = endings(path)
        for setting, curve in read_curves(path).items():
            label = f"{name}, {setting}" if setting else name
            curves[label] = curve
            rows.append((label, str(curve.steps[-1] + 1), f"{curve.seconds[-1]:.0f}", *_end(ends.get(setting, []))))
    title = "Training ELBO at the end, mean over the last twentieth of the run, and its standard error over replicas"
    print_table(title, ["", "steps", "seconds", "ELBO", "std. error"], rows)
    levels = args.levels if isinstance(args.levels, dict) else {str(level).removesuffix(".0"): level for level in args.levels or []}
    if levels:
        times = [[name, *(_when(curve, level) for level in levels.values())] for name, curve in curves.items()]
        print_table("Updates and seconds until the mean of 3,000 updates was there", ["", *levels], times)
    print(f"wrote {plot_training(curves, args.out, levels)}")
    return 0


def _when(curve: Curve, level: float) -> str:
    there = reached(curve, level)
    return "not yet" if there is None else f"{there[0]:,}, {there[1]:.0f} s"


def _end(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "stopped", ""
    return f"{fmean(values):.2f}", f"{stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
