"""``dvae paper``: the RELAX paper's tables; one file for each of its commands, imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from dvae.cli import run_group

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "run": "train what the tables' rows are made of, in the paper's set-up; goes on where it was stopped",
    "table": "print the published figures beside ours",
}
"""What each command does, in one line."""


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one command; ``command`` is ``"paper"``."""
    about = "Tables 1 and 2 of Backpropagation through the Void (Grathwohl et al. 2018), published and rerun."
    return run_group(command, arguments, COMMANDS, about)
