"""``dvae rl benchmark``: environment steps a second."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dvae.cli.arguments import Parser, quiet_lightning, write_json
from dvae.lab.policies.speed import loop_speed
from dvae.report.tables import print_table

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Time the loops and print one table."""
    parser = Parser(
        command, "Environment steps a second on CartPole through the whole training loop, beside stable-baselines3's A2C."
    )
    parser.add_function_arguments(loop_speed, as_group=False)
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    quiet_lightning()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    figures = loop_speed(args.num_updates, args.repetitions, num_seeds=args.num_seeds, peers=args.peers)
    first = figures[0].steps_per_second
    rows = [(own.name, f"{own.steps_per_second:,.0f}", f"{own.steps_per_second / first:.2f}") for own in figures]
    print_table(
        "Environment steps a second, CartPole, 8 environments an agent, 5 steps an update", ["", "steps/s", "to one agent"], rows
    )
    if args.json is not None:
        write_json(args.json, {"loops": [own._asdict() for own in figures]})
    return 0
