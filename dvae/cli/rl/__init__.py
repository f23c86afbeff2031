"""``dvae rl``: policies; one file for each of its commands, imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from dvae.cli import run_group

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
    about = "Policies, trained with the library's gradient estimators in environments of gymnasium."
    return run_group(command, arguments, COMMANDS, about)
