"""``dvae rl``: policies; one file for each of its commands, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from dvae.cli import usage
from dvae.cli.errors import UsageError, did_you_mean

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "fit": "train agents",
    "evaluate": "mean reward of fresh episodes of a checkpoint, and one as a GIF",
    "compare": "train agents with several estimators and seeds, one table and one plot",
    "variance": "compare the variance of estimators' gradients at a checkpoint",
    "certify": "measure a policy gradient's bias against enumeration of all trajectories",
    "benchmark": "environment steps a second, beside stable-baselines3's A2C",
}
"""What each command does, in one line."""


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one command; ``command`` is ``"rl"``."""
    which, *rest = arguments or ["--help"]
    if which in ("-h", "--help", "help") and not rest:
        about = "Policies, trained with the library's gradient estimators in environments of gymnasium."
        print(usage(f"dvae {command}", about, COMMANDS, f"dvae help {command} COMMAND lists a command's arguments."))
        raise SystemExit(0)
    if which in ("-h", "--help", "help"):
        which, rest = rest[0], ["--help"]
    if which not in COMMANDS:
        hint = did_you_mean(which, COMMANDS) or f"; expected one of {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command '{command} {which}'{hint}")
    return importlib.import_module(f"dvae.cli.rl.{which}").main(f"{command} {which}", rest)
