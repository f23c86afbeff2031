"""``dvae rl benchmark``: environment steps a second, and episodes to solve a task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from dvae.cli.arguments import Parser, quiet_lightning, write_json
from dvae.errors import InputError
from dvae.lab.policies.speed import LoopSpeed, Solving, loop_speed, solving
from dvae.report.tables import print_table

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Time the loops and print one table."""
    parser = Parser(
        command, "Environment steps a second on CartPole through the whole training loop, beside stable-baselines3's A2C."
    )
    parser.add_function_arguments(loop_speed, as_group=False)
    text = "instead, episodes and steps until CartPole is solved, by so many agents each"
    parser.add_argument("--solve", type=int | None, default=None, help=text)
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    quiet_lightning()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    figures: list[LoopSpeed] | list[Solving]
    if args.solve is None:
        figures = loop_speed(args.num_updates, args.repetitions, num_seeds=args.num_seeds, peers=args.peers)
        title = "Environment steps a second, CartPole, 8 environments an agent, 5 steps an update"
        first = figures[0].steps_per_second
        rows = [(own.name, f"{own.steps_per_second:,.0f}", f"{own.steps_per_second / first:.2f}") for own in figures]
        print_table(title, ["", "steps/s", "to one agent"], rows)
    else:
        if args.solve < 1:
            raise InputError(f"solve must be at least 1, got {args.solve}")
        figures = solving(args.solve, peers=args.peers)
        title = f"Until CartPole is solved (mean of 100 episodes above 195 of 200), {args.solve} agents each, settings equal"
        print_table(title, ["", "lr", "episodes", "std. error", "steps", "std. error", "unsolved"], [_row(own) for own in figures])
    if args.json is not None:
        write_json(args.json, {"loops": [own._asdict() for own in figures]})
    return 0


def _row(own: Solving) -> tuple[str, ...]:
    figures = (*own.episodes[:2], *own.steps[:2])
    text = ["" if math.isnan(figure) else f"{figure:,.0f}" for figure in figures]
    return (own.name, f"{own.lr:g}", *text, str(own.episodes.unsolved))
