"""Objects that remember, as plain values, how they were made, so that a file can hold them without pickled code.

A config is ``{"class_path": "dvae.networks.MLP", "init_args": {"hidden": [200, 200]}}``, the form that jsonargparse
and LightningCLI use.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dvae.errors import InputError

__all__ = [
    "MOVED",
    "Configurable",
    "Module",
    "check_yaml",
    "check_yaml_text",
    "class_paths",
    "current_path",
    "import_class",
    "import_object",
    "instantiate",
    "is_trusted",
    "public_path",
    "require_trust",
]

MOVED = {
    "dvae.models.DiscreteVAE": "dvae.DiscreteVAE",
    "dvae.replicas.Replicas": "dvae.Replicas",
    "dvae.control_variates.SurrogateNetwork": "dvae.networks.SurrogateNetwork",
    "dvae.networks.FactorialPrior": "dvae.priors.Factorial",
    "dvae.toy.SoftSurrogate": "dvae.lab.toy.SoftSurrogate",
    "dvae.callbacks.BestCheckpoint": "dvae.training.callbacks.BestCheckpoint",
    "dvae.callbacks.LastCheckpoint": "dvae.training.callbacks.LastCheckpoint",
    "dvae.callbacks.Pictures": "dvae.training.callbacks.Pictures",
    "dvae.callbacks.ProgressBar": "dvae.training.callbacks.ProgressBar",
    "dvae.callbacks.VarianceMonitor": "dvae.training.callbacks.VarianceMonitor",
}
"""Where classes are today that older checkpoints and configs name elsewhere."""

# Whose classes a file may name: importing them runs no code that a user did not install for this package.
_TRUSTED = ("dvae.", "torch.nn.", "torch.optim.")

# A configuration is a page of text; what is larger was not written by hand, or is a bomb.
_MAX_BYTES, _MAX_NODES = 2**20, 10**5

T = TypeVar("T")


class Configurable:
    """Mixin that records an object's constructor arguments as plain values, in ``.config``.

    Nothing is asked of a subclass: derive from it and write an ordinary ``__init__``. Arguments that are themselves
    configurable are recorded as their configs; an argument that has no plain form (an array, a bare ``nn.Module``) is recorded
    by its type only, and rebuilding from the config then asks for it.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.__dict__["_init_args"] = _bind(cls, args, kwargs)
        return self

    @property
    def config(self) -> dict[str, Any]:
        """``{"class_path": str, "init_args": dict}``, plain values throughout."""
        return {
            "class_path": public_path(type(self)),
            "init_args": dict(self.__dict__["_init_args"]),
        }

    def record_argument(self, name: str, value: Any) -> None:
        """Have the config follow where the part that a constructor argument made is replaced.

        Arguments:
            name: of the argument.
            value: what it would be given today.

        Raises:
            InputError: the constructor does not take it, so that nothing could rebuild the object.
        """
        parameters = inspect.signature(type(self)).parameters
        if name not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise InputError(
                f"{name} cannot be replaced: {type(self).__name__} does not take it in its constructor, so that no checkpoint "
                f"could rebuild the model; give {type(self).__name__}.__init__ an argument {name}"
            )
        self.__dict__["_init_args"] = {**self.__dict__["_init_args"], name: _plain(value)}


class Module(Configurable, nn.Module):
    """A ``torch.nn.Module`` that remembers its constructor arguments: the base for encoders, decoders and estimators."""


def instantiate(config: Any, base: type[T], name: str, optional: Mapping[str, Any] | None = None, **overrides: Any) -> T:
    """Build the object that ``config`` describes; an object that already is a ``base`` passes through.

    Arguments:
        config: an instance of ``base``, or ``{"class_path": ..., "init_args": {...}}``.
        base: the class that the result must derive from.
        name: what the argument is called, for the error message.
        optional: further constructor arguments, of those that the class takes and the config does not give.
        overrides: further constructor arguments.

    Raises:
        InputError: the config has another form, its class cannot be imported or is no ``base``, or its arguments do not fit.
    """
    if isinstance(config, base):
        return config
    if not isinstance(config, Mapping) or not isinstance(config.get("class_path"), str):
        if isinstance(config, Mapping) and "given_as" in config:
            raise InputError(
                f"{name} was given as an object of type {config['given_as']}, whose constructor arguments are not recorded; "
                f"pass {name}=... when loading, or derive its class from dvae.Module"
            )
        raise InputError(f"{name} must be a {base.__name__} or a mapping with a class_path, got {config!r}")
    unknown = set(config) - {"class_path", "init_args"}
    if unknown:
        raise InputError(f"{name} has unknown keys {sorted(unknown)}; expected class_path and init_args")
    cls = import_class(config["class_path"], base, name)
    arguments = config.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise InputError(f"{name}.init_args must be a mapping, got {arguments!r}")
    absent = {key: value for key, value in (optional or {}).items() if arguments.get(key) is None}
    overrides |= {key: value for key, value in absent.items() if key in inspect.signature(cls).parameters}
    arguments = {key: value for key, value in arguments.items() if key not in absent}
    try:
        inspect.signature(cls).bind(**arguments, **overrides)
    except TypeError as error:
        raise InputError(f"{name}: {config['class_path']} does not take these arguments: {error}") from None
    return cls(**arguments, **overrides)


def import_class(path: str, base: type[T], name: str) -> type[T]:
    """Import the class at a dotted ``path`` and check that it derives from ``base``; an InputError names ``name`` otherwise."""
    found = import_object(path, name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{name}: {path!r} is not a subclass of {base.__name__}")
    return found


def import_object(path: str, name: str) -> Any:
    """Import what stands at a dotted ``path``; an InputError names ``name`` where there is nothing."""
    module, _, attribute = current_path(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{name}: cannot import {path!r}: {error}") from None


def current_path(path: str) -> str:
    """Where the class at a path that may be of an older version is today."""
    return MOVED.get(path, path)


def public_path(cls: type) -> str:
    """The shortest import path of a class: of the outermost package that has it under its name.

    Files within a package may be rearranged without a word in :data:`MOVED`.
    """
    parts = cls.__module__.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def is_trusted(path: str) -> bool:
    """Whether a class is one that a file may name without being trusted."""
    return path.startswith(_TRUSTED)


def require_trust(what: str, paths: Iterable[str], trust: bool) -> None:
    """An InputError where a file names classes from elsewhere, and the user does not trust it.

    Arguments:
        what: the file, as the sentence begins.
        paths: of all classes that it names.
        trust: whether the user does.
    """
    foreign = [path for path in paths if not is_trusted(path)]
    if foreign and not trust:
        raise InputError(
            f"{what} names classes outside dvae ({', '.join(foreign)}); importing them runs their code: pass --trust (trust=True) "
            "if you know where it comes from"
        )


def class_paths(config: Any) -> Iterator[str]:
    """Every class path in a config, at any depth."""
    if isinstance(config, Mapping):
        if isinstance(config.get("class_path"), str):
            yield config["class_path"]
        for value in config.values():
            yield from class_paths(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from class_paths(value)


def check_yaml(path: str | Path) -> Any:
    """The mapping in a YAML file, which must be small also when its aliases are written out.

    Raises:
        InputError: the file cannot be read, is no YAML mapping, or would take too much memory or time to work through.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"config {path} must be at most {_MAX_BYTES} bytes, got {path.stat().st_size}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} cannot be read as text: {error}") from None
    content = check_yaml_text(text, f"config {path}")
    if not isinstance(content, dict | None):
        raise InputError(f"config {path} must be a mapping of settings, got {type(content).__name__}")
    return content or {}


def check_yaml_text(text: str, name: str) -> Any:
    """What a text in YAML says, within the same limits; an InputError calls it ``name``."""
    import yaml  # comes with jsonargparse

    if len(text) > _MAX_BYTES:
        raise InputError(f"{name} must be at most {_MAX_BYTES} bytes, got {len(text)}")
    try:
        nodes = _num_nodes(yaml.compose(text, Loader=yaml.SafeLoader), {})
        if nodes > _MAX_NODES:
            raise InputError(f"{name} must have at most {_MAX_NODES} values with its aliases written out, got {nodes:.3g}")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is not YAML: {' '.join(str(error).split())[:200]}") from None


def _num_nodes(node: Any, known: dict[int, float]) -> float:
    """How many values there are below, each alias counted as often as it is used; infinite where one holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is counted: met again before that, it holds itself
        children = getattr(node, "value", None)
        total = 1.0
        for child in children if isinstance(children, list) else ():
            for part in child if isinstance(child, tuple) else (child,):
                total += _num_nodes(part, known)
        known[id(node)] = total
    return known[id(node)]


def _bind(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    # Only what binds is recorded: copying and unpickling call __new__ without arguments, and a wrong call is __init__'s to report.
    parameters = inspect.signature(cls).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    given = dict(zip(positional, args, strict=False)) | kwargs
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Configurable):
        return value.config
    if isinstance(value, type):
        return public_path(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return {"given_as": f"{type(value).__module__}.{type(value).__qualname__}"}
