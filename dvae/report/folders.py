"""What a run's folder holds: its logs, and how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["read_command", "read_config", "tables_below"]


def tables_below(folder: str | Path) -> list[Path]:
    """The ``metrics.csv`` of all runs below a folder, the newest last."""
    return sorted(Path(folder).rglob("metrics.csv"), key=lambda file: file.stat().st_mtime)


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run's folder; empty where it has none, as of a run in Python."""
    import yaml  # comes with jsonargparse

    try:
        content = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def read_command(folder: Path) -> str | None:
    """The command that made a run, which ``dvae fit`` puts at the head of its config; None where the file does not say."""
    try:
        lines = (folder / "config.yaml").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line[2:] for line in lines if line.startswith("# dvae ")), None)
