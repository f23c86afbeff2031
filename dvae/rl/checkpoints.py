"""Policies out of checkpoints, by the rules of :mod:`dvae.training.checkpoints`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dvae.config import class_paths, instantiate, require_trust
from dvae.errors import InputError
from dvae.rl.data import Rollouts
from dvae.rl.module import PolicyGradient
from dvae.training import record
from dvae.training.checkpoints import Checkpoint

__all__ = ["check_environment", "environments_of", "foreign", "load", "open_policies"]


def load(path: str | Path | Checkpoint, *, trust: bool = False, **overrides: Any) -> PolicyGradient:
    """The policies of a checkpoint, in evaluation mode.

    Arguments:
        path: a checkpoint, or a folder that holds some (see :func:`dvae.training.checkpoints.find_checkpoint`).
        trust: import classes from outside ``dvae`` that the checkpoint names; importing runs their code.
        overrides: constructor arguments that replace the checkpoint's, such as a network that has no config.

    Raises:
        InputError: the file cannot be read, is not of policies, names a class that is not trusted, or does not fit the model it
            names.
    """
    checkpoint = open_policies(path)
    steps = checkpoint.content["dvae"].get("num_steps")
    parts = len(steps) if isinstance(steps, list) else 1
    return checkpoint.build(PolicyGradient, trust=trust, parts=max(1, parts), **overrides)


def open_policies(path: str | Path | Checkpoint) -> Checkpoint:
    """The checkpoint; an InputError where it cannot be read, or is of an autoencoder."""
    checkpoint = path if isinstance(path, Checkpoint) else Checkpoint.open(path)
    if not record.is_policy(checkpoint.content):
        raise InputError(
            f"checkpoint {checkpoint.path} is of an autoencoder: dvae evaluate measures it, dvae.training.checkpoints.load_model "
            "gives it"
        )
    return checkpoint


def environments_of(checkpoint: Checkpoint, *, trust: bool = False, **overrides: Any) -> Rollouts:
    """The environments that the policies of a checkpoint were trained in.

    Arguments:
        checkpoint: of policies.
        trust: import environments, wrappers and classes from elsewhere that it names; importing runs their code.
        overrides: arguments of :class:`dvae.rl.Rollouts` that replace the checkpoint's.

    Raises:
        InputError: it does not say, names what is not trusted, or there is no such environment.
    """
    config = record.data_of(checkpoint.content)
    if not isinstance(config, Mapping) or not isinstance(config.get("init_args"), Mapping):
        raise InputError(f"checkpoint {checkpoint.path} does not say what environment it is of; pass --env (data=...)")
    arguments = {**config["init_args"], **overrides}
    if isinstance(arguments.get("env"), Mapping):  # what was no plain value
        raise InputError(f"checkpoint {checkpoint.path} is of an environment made by a function; pass --env (data=...)")
    own = {name: value for name, value in arguments.items() if name not in overrides}
    require_trust(f"checkpoint {checkpoint.path}", class_paths({"class_path": config.get("class_path")}), trust)
    check_environment(checkpoint, own, trust)
    return instantiate({**config, "init_args": arguments}, Rollouts, "the checkpoint's data")


def check_environment(checkpoint: Checkpoint, arguments: Mapping[str, Any], trust: bool) -> None:
    """An InputError where a checkpoint's environment is imported from elsewhere, and the user does not trust the file.

    Arguments:
        checkpoint: of policies.
        arguments: those of its :class:`dvae.rl.Rollouts`.
        trust: whether it may be imported.
    """
    # Not dvae's own functions either: they would be called with the file's arguments.
    if not trust and (names := list(foreign(arguments))):
        raise InputError(
            f"checkpoint {checkpoint.path} names environments outside gymnasium ({', '.join(names)}); importing them runs their "
            "code: pass --trust (trust=True) if you know where it comes from"
        )


def foreign(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Environments and wrappers that are none of gymnasium's own; an id with a colon is imported too.

    Arguments:
        arguments: of :class:`dvae.rl.Rollouts`, as plain values.
    """
    env = str(arguments.get("env", ""))
    if "." in env or ":" in env:
        yield env
    wrappers = arguments.get("wrappers")
    for wrapper in wrappers if isinstance(wrappers, (list, tuple)) else ():
        path = str(wrapper.get("class_path") if isinstance(wrapper, Mapping) else wrapper)
        if "." in path.removeprefix("gymnasium.wrappers."):
            yield path
