"""How runs were made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dvae.lab.report.effort import Effort, Progress
from dvae.lab.report.runs import Run
from dvae.report.folders import read_command
from dvae.report.page import Block, Cell, Listing, Note, Table

__all__ = ["configuration"]


def configuration(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """In what the runs differ, and of each the command and the config."""
    flat = {run.label: _flattened(run.config) for run in runs}
    keys = [
        key
        for key in dict.fromkeys(key for own in flat.values() for key in own)
        if len({own.get(key) for own in flat.values()}) > 1
    ]
    blocks: list[Block] = []
    if keys and len(runs) > 1:
        rows = [[Cell(key), *(Cell(flat[run.label].get(key, "")) for run in runs)] for key in keys]
        blocks.append(Table("In what the runs differ", ["setting", *(run.label for run in runs)], rows))
    for run in runs:
        blocks += _made_by(run)
    return blocks


def _made_by(run: Run) -> list[Block]:
    path = run.folder / "config.yaml"
    if not run.config:
        return [Note(run.label, f"has no configuration: {path} is missing or no YAML, as of a run in Python")]
    command = read_command(run.folder) or "# its command is not recorded, for it is of an earlier version"
    again = shlex.join(["dvae", "fit", "--config", str(path)])
    commands = Listing(f"{run.label}: the command that made it, and one that makes it again", f"{command}\n{again}")
    return [commands, Listing(f"{run.label}: all settings, {path}", path.read_text(errors="replace"))]


def _flattened(config: Any, prefix: str = "") -> dict[str, str]:
    """Settings by their flags; what lists hold by the name of its class, or by its number."""
    if isinstance(config, list) and any(isinstance(value, Mapping) for value in config):
        config = {_name_of(value, place, config): value for place, value in enumerate(config)}
    if not isinstance(config, Mapping):
        return {prefix: str(config)}
    found: dict[str, str] = {}
    for name, value in config.items():
        key = prefix if name == "init_args" and isinstance(value, Mapping) else f"{prefix}.{name}" if prefix else str(name)
        found |= _flattened(value, key)
    return found


def _name_of(value: Any, place: int, among: Sequence[Any]) -> str:
    """The class's name where no other of the list is of the same class."""
    classes = [own.get("class_path") if isinstance(own, Mapping) else None for own in among]
    own = classes[place]
    return str(own).split(".")[-1] if own is not None and classes.count(own) == 1 else str(place)
