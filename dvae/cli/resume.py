"""What a checkpoint says of the run that goes on from it, or of the model that is measured."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvae.cli.errors import NothingToDo
from dvae.config import class_paths, import_class, public_path, require_trust
from dvae.errors import InputError
from dvae.training import record
from dvae.training.checkpoints import Checkpoint, previous_checkpoint, read_checkpoint
from dvae.training.module import DiscreteVAE
from dvae.training.sweep import Replicas

__all__ = [
    "model_config",
    "open_resumable",
    "replicas_of",
    "require_optimizer",
    "require_size",
    "require_something_to_do",
    "resume_command",
]

# What may be set anew: it changes no number of a training run, or is about the measuring alone.
FREE_IN_TRAINING = frozenset({"compile", "steps_per_execution", "val_num_samples"})
FREE_IN_MEASURING = FREE_IN_TRAINING | {"kl", "seed"}


def open_resumable(path: Path, resume_command: Any) -> Checkpoint:
    """The checkpoint.

    Arguments:
        path: of the file.
        resume_command: a function from a checkpoint to the command line that goes on from it.

    Raises:
        InputError: it cannot be read; where the one before it can, the message has the command that goes on from that.
    """
    try:
        return Checkpoint(path, read_checkpoint(path))
    except InputError as error:
        previous = previous_checkpoint(path)
        try:
            read_checkpoint(previous)
        except InputError:
            raise error from None
        raise InputError(f"{error}; the one before it is whole, go on from it with: {resume_command(previous)}") from None


def require_optimizer(checkpoint: Checkpoint) -> None:
    """An InputError where a checkpoint holds no state of an optimizer to go on with."""
    if "optimizer_states" not in checkpoint.content:
        raise InputError(
            f"ckpt_path: {checkpoint.path} holds a model alone, whose prior was fitted afterwards, and no optimizer to go on with: "
            f"start from its weights with --init_from {checkpoint.path}"
        )


def require_something_to_do(checkpoint: Checkpoint, max_steps: int | None) -> None:
    """Nothing, or the end of the command where the run had all of its updates."""
    step = checkpoint.content.get("global_step", 0)
    if max_steps is not None and 0 <= max_steps <= step:
        raise NothingToDo(
            f"nothing left to do: {checkpoint.path} is at step {step} of {max_steps}; a larger --trainer.max_steps goes on from it"
        )


def require_size(checkpoint: Checkpoint, num_pixels: int) -> None:
    """An InputError where a checkpoint's model is of examples of another size than the data's."""
    tensors = checkpoint.content["state_dict"]
    mean = tensors.get("mean", tensors.get("models.0.mean"))
    if mean is not None and mean.numel() != num_pixels:
        raise InputError(
            f"checkpoint {checkpoint.path} is of a model of {mean.numel()} values per example, but the data have {num_pixels}"
        )


def model_config(
    checkpoint: Checkpoint, asked: Mapping[str, Any], given: Sequence[str], free: frozenset[str], trust: bool = False
) -> dict[str, Any]:
    """The model of a checkpoint, as a config; what is ``free`` and given is left out, for it stays as it is asked for.

    Arguments:
        checkpoint: of one model or of several, of which the first stands for all.
        asked: the config of the model that the command line describes.
        given: the keys that it gives, such as ``model.lr``.
        free: arguments that may be another than the checkpoint's.
        trust: import classes from outside ``dvae``.

    Raises:
        InputError: the command line gives an argument another value than the checkpoint has, or the class is not trusted.
    """
    content = checkpoint.content
    entries = content["dvae"].get("replicas")
    entry = entries[0] if isinstance(entries, list) and entries else None
    swept = set(entry["setting"]) if entry else set()
    path = record.model_path({"dvae": entry} if entry else content)
    arguments = dict(entry["hyper_parameters"] if entry else content["hyper_parameters"])
    if not isinstance(path, str):
        raise InputError(f"checkpoint {checkpoint.path} does not name its model's class")
    saved = {"class_path": path, "init_args": arguments}
    known = set(class_paths(asked))
    require_trust(f"checkpoint {checkpoint.path}", [name for name in class_paths(saved) if name not in known], trust)
    for key in given:
        name = key.removeprefix("model.")
        if key.startswith("model.") and name.split(".")[0] not in free and name not in swept:
            _require_equal(checkpoint, name, _value(saved, name.split(".")), _value(asked, name.split(".")))
    if "model" in given and _public(str(asked.get("class_path"))) != _public(path):
        raise _other(checkpoint, "model", path, asked.get("class_path"))
    kept = {key.split(".")[1] for key in given if key.startswith("model.") and key.split(".")[1] in free}
    return {"class_path": path, "init_args": {name: value for name, value in arguments.items() if name not in kept}}


def replicas_of(checkpoint: Checkpoint) -> Replicas | None:
    """The models of a checkpoint of several, without their weights; None for one of a single model."""
    entries = checkpoint.content["dvae"].get("replicas")
    if not isinstance(entries, list):
        return None
    models = [
        import_class(str(entry["class_path"]), DiscreteVAE, "the checkpoint's model")(**entry["hyper_parameters"])
        for entry in entries
    ]
    return Replicas(models, [entry["setting"] for entry in entries], [entry["seed_offset"] for entry in entries])


_ABSENT = object()


def _value(config: Any, path: Sequence[str]) -> Any:
    """An argument below a config, of a class without its arguments; where it is not recorded, the class's default."""
    for name in path:
        if not isinstance(config, Mapping):
            return _ABSENT
        if "class_path" not in config:  # arguments alone, of the checkpoint's class
            config = config.get(name, _ABSENT)
            continue
        arguments = config.get("init_args") or {}
        if name in arguments:
            config = arguments[name]
        else:
            parameters = inspect.signature(import_class(config["class_path"], object, name)).parameters
            config = parameters[name].default if name in parameters else _ABSENT
        if config is None and name == "estimator":
            config = {"class_path": "dvae.estimators.RELAX"}
    return config


def _require_equal(checkpoint: Checkpoint, name: str, saved: Any, asked: Any) -> None:
    if saved is _ABSENT or asked is _ABSENT:
        return  # an argument below a class that differs is told with the class
    if _plain(saved) != _plain(asked) and str(_plain(saved)) != str(_plain(asked)):
        raise _other(checkpoint, f"model.{name}", _plain(saved), _plain(asked))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return _public(value["class_path"])
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _public(path: str) -> str:
    """The shortest path of a class, which may be named by the file that it is in, of this version or of another."""
    try:
        return public_path(import_class(path, object, "class"))
    except InputError:
        return path


def _other(checkpoint: Checkpoint, name: str, saved: Any, asked: Any) -> InputError:
    return InputError(
        f"--{name} is {saved} in the checkpoint {checkpoint.path}, got {asked}: leave it out to keep the checkpoint's, or start a "
        "new run without --ckpt_path"
    )


# Not in the command that goes on: where to go on from, and what a run can only start from.
_OF_THE_START = ("--ckpt_path", "--init_from", "--init_from_replica")


def resume_command(arguments: Sequence[str], checkpoint: str | Path) -> str:
    """The command with another ``--ckpt_path``."""
    kept = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument in _OF_THE_START:
            next(remaining, None)
        elif argument.partition("=")[0] not in _OF_THE_START:
            kept.append(argument)
    return shlex.join(["dvae", *kept, "--ckpt_path", str(checkpoint)])
