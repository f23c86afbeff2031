"""``dvae rl compare``: estimators side by side until a task is solved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from dvae.cli import configs
from dvae.cli.arguments import Parser, flags_of, names, numbers, parted, quiet_lightning, write_json
from dvae.cli.rl import fit
from dvae.errors import InputError
from dvae.files import written_whole
from dvae.lab.policies.comparison import ArmRun, Solved, run_arm
from dvae.lab.policies.variance import default_arms
from dvae.report.policies import ArmCurves, plot_arms
from dvae.report.tables import print_table
from dvae.rl import ARMS, Rollouts
from dvae.training.callbacks import ProgressBar

__all__ = ["main"]

_DESCRIPTION = (
    "Train agents with several estimators and seeds, and print how many episodes and environment steps each took to solve the "
    "task. Further flags are those of dvae rl fit, such as --config cartpole_a2c or --model.entropy_bonus 0.01, and hold for every "
    "estimator; so does the size of the value function. What is finished is not run again by the same command."
)


def main(command: str, arguments: Sequence[str]) -> int:
    """Train what is missing, tabulate, draw."""
    parser = Parser(command, _DESCRIPTION)
    text = f"which, out of {', '.join(ARMS)}, or import paths; default: all that fit the environment"
    parser.add_argument("--estimators", type=names, default=[], help=text)
    parser.add_argument("--env", type=str | None, default=None, help="as --data.env")
    parser.add_argument("--seeds", type=int, default=10, help="agents of each estimator, trained in one run")
    parser.add_argument("--lr", type=numbers, default=[], help="learning rates, each with every estimator: 0.003,0.01")
    parser.add_argument("--out", type=str | None, default=None, help="folder for results; default: RUNS/rl_compare/NAME")
    own, further = parted(arguments, flags_of(parser))
    args = parser.parse_args(own)
    if args.seeds < 1:
        raise InputError(f"seeds must be at least 1, got {args.seeds}")
    if args.env is not None:
        further = [*further, f"--data.env={args.env}"]
    quiet_lightning()
    torch.set_num_threads(1)
    model, data, runs = fit.settings("rl fit", further)
    spaces = Rollouts(**data).spaces
    chosen = args.estimators or default_arms(spaces.action)
    rates = args.lr or [model["lr"]]
    folder = Path(args.out) if args.out else Path(runs) / "rl_compare" / configs.run_name(further, fit.SHELVES)
    _require_the_same(folder / "settings.json", {"model": model, "data": data, "seeds": args.seeds})
    done = []
    for rate in rates:
        for name in chosen:
            done.append(_finished(folder, name, rate, model, data, args.seeds))
    title = f"{data['env']}, until the mean reward of 100 episodes is above {model['solved_at']}; {args.seeds} agents each"
    print_table(title, _COLUMNS, _rows(done))
    curves = {f"{own.arm}, {own.lr:g}": ArmCurves(own.episodes, own.gradient_variance) for own in done}
    picture = plot_arms(curves, folder / "curves.png", model["solved_at"])
    write_json(str(folder / "figures.json"), {"rows": [_figures(own) for own in done]})
    print(f"wrote {folder / 'figures.json'}, {picture}")
    return 0


def _require_the_same(path: Path, settings: Mapping[str, Any]) -> None:
    """Results of other settings do not belong in one table."""
    text = json.dumps(settings, indent=2, sort_keys=True, default=str)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(text)
    elif path.read_text() != text:
        raise InputError(f"{path.parent} has results of other settings, see {path.name} there: give another --out")


def _finished(folder: Path, name: str, lr: float, model: Mapping[str, Any], data: Mapping[str, Any], seeds: int) -> ArmRun:
    path = folder / f"{name}_lr{lr:g}.json"
    if path.is_file():
        return ArmRun.read(path)
    print(f"{name}, learning rate {lr:g}")
    callbacks: list[pl.Callback] = [ProgressBar(refresh_rate=10)]
    run = run_arm(name, model, data, lr=lr, num_seeds=seeds, trainer={"callbacks": callbacks})
    run.write(path)
    return run


_COLUMNS = ["estimator", "lr", "episodes", "std. error", "median", "steps", "std. error", "unsolved", "last reward", "std. error"]


def _rows(runs: Sequence[ArmRun]) -> list[tuple[str, ...]]:
    rows = []
    for own in runs:
        episodes, steps, last = own.episodes_to_solve, own.steps_to_solve, own.last_reward
        figures = (*episodes[:3], *steps[:2])
        text = ["" if math.isnan(figure) else f"{figure:,.0f}" if math.isfinite(figure) else "never" for figure in figures]
        rows.append((own.arm, f"{own.lr:g}", *text, str(episodes.unsolved), f"{last.mean:.1f}", f"{last.std_error:.1f}"))
    return rows


def _figures(own: ArmRun) -> dict[str, Any]:
    def plain(solved: Solved) -> dict[str, Any]:
        return {name: value if math.isfinite(value) else None for name, value in solved._asdict().items()}

    figures = {"episodes": own.episodes_to_solve, "steps": own.steps_to_solve, "last_reward": own.last_reward}
    return {"estimator": own.arm, "lr": own.lr, **{name: plain(value) for name, value in figures.items()}}
