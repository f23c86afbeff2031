"""``dvae paper run``: the runs behind the table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from dvae.cli import configs, fit
from dvae.cli.arguments import Parser, flags_of, names, parted, quiet_lightning
from dvae.cli.comparison import choose
from dvae.cli.errors import NothingToDo
from dvae.cli.evaluate import evaluations
from dvae.cli.runs import going_on, newest, require_free
from dvae.errors import InputError, did_you_mean
from dvae.lab.evaluate import Evaluation
from dvae.lab.paper import ROWS, Result, result_of, write_result
from dvae.lab.paper.published import ESTIMATORS, LEARNING_RATES, STEPS
from dvae.report.curves import read_curves
from dvae.training import record
from dvae.training.checkpoints import Checkpoint, find_checkpoint

__all__ = ["RESULTS", "main", "require_rows"]

RESULTS = "runs/paper/results"

_DESCRIPTION = (
    "Train the rows of the RELAX paper's tables in its set-up: batches of 24, Adam (.9, .99999), 2,000,000 updates. Each run "
    "leaves one file of figures. Stopped, the same command goes on. Further flags are those of dvae fit, and hold for every run."
)
_ROW = "the rows, --estimators, --lrs and --max_steps say what it is"
# What a run of the paper is, and so no flag.
_TAKEN = dict.fromkeys(
    ("config", "model.estimator", "model.lr", "data", "data.path", "trainer.max_steps", "replicas", "sweep", "name"), _ROW
) | {"ckpt_path": "the same command goes on with what was stopped"}


def main(command: str, arguments: Sequence[str]) -> int:
    """Train, evaluate, and keep the figures."""
    parser = _parser(command)
    own, further = parted(arguments, flags_of(parser))
    args = parser.parse_args(own)
    quiet_lightning()
    require_rows(args.rows)
    asked = [argument.partition("=")[0].lstrip("-") for argument in further if argument.startswith("-")]
    require_free({**dict.fromkeys(asked), **dict(configs.given(fit.rewritten(further)))}, _TAKEN, "to dvae paper run")
    if args.max_steps < 1 or args.num_samples < 1:
        raise InputError(f"max_steps and num_samples must be at least 1, got {args.max_steps} and {args.num_samples}")
    data = {row: _data_of(row, args.mnist, args.omniglot) for row in args.rows}
    choices = {name: choose(name) for name in args.estimators}
    for row in args.rows:
        for name, choice in choices.items():
            for lr in args.lrs:
                folder = f"{row.replace('/', '_')}_{name}_{lr:g}"
                flags = [f"--config={row.split('/')[1].lower()}", *choice.flags, f"--model.lr={lr}", *data[row], *further]
                _train(Path(args.runs), folder, [*flags, f"--trainer.max_steps={args.max_steps}"])
                result = _evaluated(Path(args.runs) / folder, row, name, lr, args.num_samples)
                print(f"{row}, {name}, lr {lr:g}: {write_result(result, Path(args.results))}")
    print(f"see the table with: dvae paper table{'' if args.results == RESULTS else f' --results {args.results}'}")
    return 0


def require_rows(rows: Sequence[str]) -> None:
    """An InputError where a row is none of the paper's."""
    for row in rows:
        if row not in ROWS:
            raise InputError(f"rows must be out of {', '.join(ROWS)}, got {row}{did_you_mean(row, ROWS)}")


def _parser(command: str) -> Parser:
    parser = Parser(command, _DESCRIPTION)
    parser.add_argument("--rows", type=names, default=["MNIST/L1"], help=f"out of {', '.join(ROWS)}")
    text = f"as for dvae compare; the paper's are {', '.join(ESTIMATORS)}"
    parser.add_argument("--estimators", type=names, default=["REBAR", "RELAX"], help=text)
    text = f"learning rates, of which the table takes the best on the validation set; the paper's: {list(LEARNING_RATES)}"
    parser.add_argument("--lrs", type=list[float], default=[1e-3], help=text)
    parser.add_argument("--max_steps", type=int, default=STEPS, help="updates of each run")
    text = "a fixed binarization, as dvae fit --data.path takes it; default: the bundled one, which is not the field's"
    parser.add_argument("--mnist", type=str | None, default=None, help=text)
    parser.add_argument("--omniglot", type=str, default="chardata.mat", help="Omniglot's file of 28 x 28 pixels")
    parser.add_argument("--num_samples", type=int, default=100, help="of the importance-weighted bound, for each example")
    parser.add_argument("--runs", type=str, default="runs/paper", help="folder that holds the runs")
    parser.add_argument("--results", type=str, default=RESULTS, help="folder that the figures are written to")
    return parser


def _data_of(row: str, mnist: str | None, omniglot: str) -> list[str]:
    if row.startswith("MNIST"):
        return [] if mnist is None else [f"--data.path={mnist}"]
    if not Path(omniglot).is_file():
        raise InputError(
            f"omniglot must be Omniglot's chardata.mat, for {row}, but there is no file {omniglot}: see dvae.data.Omniglot"
        )
    return ["--data=Omniglot", f"--data.path={omniglot}"]


def _train(runs: Path, name: str, flags: Sequence[str]) -> None:
    """To the end: from the start, from where it was stopped, or not at all."""
    with contextlib.suppress(NothingToDo):
        fit.main("fit", [*flags, f"--runs={runs}", f"--name={name}", *going_on(runs / name)])


def _evaluated(folder: Path, row: str, estimator: str, lr: float, num_samples: int) -> Result:
    checkpoint = Checkpoint.open(find_checkpoint(folder))
    (curve,) = read_curves(folder).values()
    with Progress(transient=True) as bar:
        found = [
            evaluations(checkpoint, [None], bar, split=split, num_samples=num_samples, num_draws=2)[0]
            for split in ("valid", "test")
        ]
    valid, test = (own for own in found if isinstance(own, Evaluation))
    steps = Checkpoint.open(newest(folder)).content["dvae"]["iteration"]
    # Of the run itself: the command that finds it done may name other data.
    read = record.data_of(checkpoint.content)
    path = (read.get("init_args") or {}).get("path") if isinstance(read, dict) else None
    data = "bundled" if path is None else Path(path).name
    return result_of(row, estimator, lr, data, steps, curve, valid, test)
