"""``dvae rl evaluate``: what the policies of a checkpoint are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.progress import Progress

from dvae.cli.arguments import Parser, device_of, write_json
from dvae.errors import InputError
from dvae.report.pictures import save_gif
from dvae.report.tables import print_table
from dvae.rl import PolicyEvaluation, Rollouts, evaluate, film
from dvae.rl.checkpoints import environments_of, open_policies

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Evaluate the agents of a checkpoint and print one table."""
    parser = Parser(command, "Mean reward and length of fresh episodes of each agent of a checkpoint, with standard errors.")
    parser.add_argument("checkpoint", type=str, help="a checkpoint, or a folder of runs, of which the newest best.ckpt is taken")
    text = "an environment in place of the checkpoint's, with the same observations and actions"
    parser.add_argument("--env", type=str | None, default=None, help=text)
    skip: set[str | int] = {"model", "data", "greedy", "device", "trust", "progress"}
    parser.add_function_arguments(evaluate, as_group=False, skip=skip, fail_untyped=False)
    text = "take the most probable action, or the mean, in place of a sample"
    parser.add_argument("--greedy", action="store_true", help=text)
    text = "import what the checkpoint names from outside dvae and gymnasium; it runs that code"
    parser.add_argument("--trust", action="store_true", help=text)
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda, where the policy is computed")
    text = "also write an episode to this .gif file, of the first agent that is evaluated"
    parser.add_argument("--gif", type=str | None, default=None, help=text)
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    if args.gif is not None and not args.gif.endswith(".gif"):
        raise InputError(f"gif must be a .gif file, got {args.gif}")
    device = device_of(args.device)
    assert device is not None
    checkpoint = open_policies(args.checkpoint)
    options = {"greedy": args.greedy, "seed": args.seed, "trust": args.trust}
    data = environments_of(checkpoint, trust=args.trust, **({} if args.env is None else {"env": args.env}))
    with Progress(transient=True) as bar:
        task = bar.add_task("episodes", total=None)
        results = evaluate(
            checkpoint,
            data,
            episodes=args.episodes,
            agent=args.agent,
            device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **options,
        )
    kind = "greedy" if args.greedy else "sampled"
    print_table(f"{checkpoint.path}\n{args.episodes} episodes of {data.env}, {kind} actions", _COLUMNS, _rows(results))
    if args.gif is not None:
        shown = film(checkpoint, data, agent=results[0].agent, **options)
        path = save_gif(shown.frames, shown.frames_per_second, args.gif)
        print(f"an episode of agent {results[0].agent}, reward {shown.reward:.2f}: {path}")
    if args.json is not None:
        write_json(args.json, _figures(str(checkpoint.path), data, results, args.greedy))
    return 0


_COLUMNS = ["agent", "mean reward", "std. error", "length", "std. error", "in training", "solved after"]


def _rows(results: Sequence[PolicyEvaluation]) -> list[tuple[str, ...]]:
    rows = []
    for own in results:
        solved = "" if own.solved is None else f"{own.solved[0]:,} episodes"
        figures = (own.reward, own.reward_error, own.length, own.length_error, own.training_reward)
        rows.append((str(own.agent), *("" if math.isnan(figure) else f"{figure:.2f}" for figure in figures), solved))
    return rows


def _figures(path: str, data: Rollouts, results: Sequence[PolicyEvaluation], greedy: bool) -> dict[str, object]:
    return {"checkpoint": path, "env": str(data.env), "greedy": greedy, "agents": [own.as_dict() for own in results]}
