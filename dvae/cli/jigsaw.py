"""``dvae jigsaw``: shuffled tiles of digits, put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.progress import Progress

from dvae.cli.arguments import Parser, names, write_json
from dvae.errors import InputError
from dvae.lab.jigsaw import JigsawRun, jigsaw
from dvae.lab.toy import estimator_for
from dvae.latents import PlackettLuce
from dvae.report.jigsaw import jigsaw_picture
from dvae.report.pictures import save_picture
from dvae.report.tables import print_table

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Train a network for each estimator and size, and write its figures and pictures."""
    parser = Parser(command, "Put digits in shuffled tiles together: their order is a latent that a network infers.")
    text = "such as '[LOO(num_samples=4), my_estimators.Mine]'"
    parser.add_argument("--estimators", type=names, default=["REINFORCE", "LOO", "RELAX"], help=text)
    parser.add_argument("--grids", type=names, default=["2", "3"], help="tiles along each side: 2,3")
    parser.add_function_arguments(jigsaw, as_group=False, skip={"estimator", "grid", "progress"})
    parser.add_argument("--out", type=str, default="jigsaw", help="folder for jigsaw.json and a picture of each run")
    args = parser.parse_args(list(arguments))
    if not all(grid.isdigit() for grid in args.grids):
        raise InputError(f"grids must be whole numbers such as 2,3, got {','.join(args.grids)}")
    for name in args.estimators:
        estimator_for(PlackettLuce, name)
    grids, runs = [int(grid) for grid in args.grids], []
    options = {name: args[name] for name in ("latent", "num_steps", "batch_size", "lr", "seed")}
    with Progress(transient=True) as bar:
        task = bar.add_task("running", total=len(grids) * len(args.estimators) * args.num_steps)
        for grid in grids:
            for name in args.estimators:
                bar.update(task, description=f"{name}, {grid} x {grid} tiles")
                runs.append(jigsaw(name, grid, progress=partial(bar.advance, task), **options))
    rows = [
        (run.estimator, f"{run.grid} x {run.grid}", f"{run.whole[-1].item():.2%}", f"{run.tiles[-1].item():.2%}") for run in runs
    ]
    title = f"10,000 test images after {args.num_steps} updates: put together without a fault, and places with the right tile"
    print_table(title, ["estimator", "tiles", "images", "places"], rows)
    print("wrote " + ", ".join(str(path) for path in _written(runs, Path(args.out))))
    return 0


def _written(runs: Sequence[JigsawRun], folder: Path) -> list[Path]:
    pictures = [save_picture(jigsaw_picture(run), folder / f"{run.estimator}_{run.grid}x{run.grid}.png") for run in runs]
    figures = [
        {"estimator": run.estimator, "grid": run.grid}
        | {name: column.tolist() for name, column in (("steps", run.steps), ("images", run.whole), ("places", run.tiles))}
        for run in runs
    ]
    write_json(str(folder / "jigsaw.json"), figures)
    return [*pictures, folder / "jigsaw.json"]
