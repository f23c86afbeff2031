"""Config files: where they are, what is in them, and what a command line gives in all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, get_loader, set_loader  # type: ignore[attr-defined]

from dvae.config import MOVED, check_yaml, check_yaml_text
from dvae.errors import InputError, did_you_mean
from dvae.resources import bundled_folder

__all__ = ["MODE", "ConfigFile", "current", "find_config", "given", "run_name"]

MODE = "dvae"
"""jsonargparse's name for the way that configs are read here."""

_SHELVES = ("", "model", "estimator", "prior")

# Texts up to this length cannot hold enough to take long.
_SHORT = 1000


class ConfigFile(ActionConfigFile):
    """``--config``, which also takes the names of the package's own files."""

    shelves: Sequence[str] = _SHELVES
    """See :func:`find_config`."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        path = find_config(values, self.shelves)
        if not _is_text(path):
            check_yaml(path)
        super().__call__(parser, cfg, path, option_string)  # type: ignore[no-untyped-call]


def find_config(name: str, shelves: Sequence[str] = _SHELVES) -> str:
    """The file that ``--config`` means: one at that path, or one of the package's, called ``l1``, ``model/l1`` or with its path.

    Arguments:
        name: as given.
        shelves: folders of the package's configs in which it is looked for.

    Raises:
        InputError: there is none.
    """
    if _is_text(name) or Path(name).is_file():
        return name
    folder = bundled_folder("configs")
    tail = name.removeprefix("configs/").removesuffix(".yaml")
    for place in shelves:
        for path in (folder / place / f"{tail}.yaml", folder / f"{tail}.yaml"):
            if path.is_file() and (path.parent == folder or path.parent.name in shelves):
                return str(path)
    known = sorted(
        f"{place}/{path.stem}" for place in shelves if place for path in (folder / place).glob("*.yaml") if path.stem != "base"
    )
    hint = did_you_mean(tail, known) or did_you_mean(tail, [Path(path).name for path in known])
    raise InputError(f"config {name} does not exist, and the package has {', '.join(known)}{hint}")


def _is_text(config: str) -> bool:
    """Whether a config is given as it is, and not as a file."""
    return "{" in config or "\n" in config


def run_name(arguments: Sequence[str], shelves: Sequence[str] = _SHELVES) -> str:
    """What a run is called after the configs that it is made of."""
    return "_".join(Path(path).stem for path in _configs(arguments, shelves) if not _is_text(path)) or "run"


def given(arguments: Sequence[str], shelves: Sequence[str] = _SHELVES) -> list[tuple[str, Any]]:
    """Every setting that config files and flags give, in their order: (key with dots, value), a class under its argument's key."""
    pairs: list[tuple[str, Any]] = []
    for flag, value in _flags(arguments):
        if flag in ("config", "c"):
            path = find_config(value or "", shelves)
            pairs += _flat(current(check_yaml_text(path, "config") if _is_text(path) else check_yaml(path)))
        else:
            pairs.append((flag.replace(".init_args.", ".").removesuffix(".class_path"), value))
    return pairs


def _configs(arguments: Sequence[str], shelves: Sequence[str]) -> Iterator[str]:
    for flag, value in _flags(arguments):
        if flag in ("config", "c"):
            yield find_config(value or "", shelves)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(name, value) of each flag; None for one without a value."""
    for position, argument in enumerate(arguments):
        if argument.startswith("-") and argument.lstrip("-")[:1].isalpha():
            flag, equals, value = argument.partition("=")
            following = arguments[position + 1] if position + 1 < len(arguments) else "--"
            found = value if equals else None if following.startswith("--") else following
            yield flag.lstrip("-").removesuffix("+"), found


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        if key == "class_path":
            yield prefix, value
        elif key == "init_args":
            yield from _flat(value, prefix)
        else:
            name = f"{prefix}.{key}" if prefix else str(key)
            if isinstance(value, Mapping) and value:
                yield from _flat(value, name)
            else:
                yield name, value


def current(value: Any) -> Any:
    """A config with the paths that its classes have today."""
    if isinstance(value, str):
        return MOVED.get(value, value)
    if isinstance(value, Mapping):
        return {key: current(item) for key, item in value.items()}
    if isinstance(value, list):
        return [current(item) for item in value]
    return value


def _load(text: str) -> Any:
    if len(text) > _SHORT or "&" in text:
        check_yaml_text(text, "config")
    return current(get_loader("yaml")(text))


set_loader(MODE, _load, (yaml.YAMLError,))
