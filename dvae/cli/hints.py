"""Which of a model's or a data set's arguments is wrong, and what was perhaps meant."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from torch import nn

from dvae.config import import_class
from dvae.data import BinarizedMNIST
from dvae.errors import InputError, did_you_mean
from dvae.estimators import RELAX, GradientEstimator
from dvae.likelihoods import Likelihood
from dvae.models import Quantizer
from dvae.priors import Prior
from dvae.training.module import DiscreteVAE
from dvae.training.single import Trainable

__all__ = ["explain"]

# Where a class is looked for that is given without its package.
_SHELVES = (
    (GradientEstimator, "dvae.estimators"),
    (Prior, "dvae.priors"),
    (Likelihood, "dvae.likelihoods"),
    (Trainable, "dvae"),
    (Quantizer, "dvae.models"),
    (pl.LightningDataModule, "dvae.data"),
    (nn.Module, "dvae.networks"),
)


# What a model tells its networks, and the type.
_SIZES = {"in_features": "int", "out_features": "int", "image_shape": "list[int]", "outputs_per_pixel": "int"}

_DEFAULTS: Mapping[str, type] = {"model": DiscreteVAE, "model.estimator": RELAX, "data": BinarizedMNIST}


def explain(pairs: Sequence[tuple[str, Any]], defaults: Mapping[str, type] = _DEFAULTS) -> str | None:
    """The first thing that is wrong with the model's and the data's settings, as one sentence; None where nothing is found.

    Arguments:
        pairs: see :func:`dvae.cli.configs.given`.
        defaults: the classes where no others are named, by key.
    """
    classes = dict(defaults)
    for key, value in pairs:
        if key.split(".")[0] in ("model", "data") and not key.endswith(".help") and (sentence := _wrong(key, value, classes)):
            return sentence
    return _missing([key for key, _ in pairs], classes)


def _missing(given: Iterable[str], classes: Mapping[str, type]) -> str | None:
    """The first argument that a class needs and was not given."""
    keys = set(given)
    for key, cls in classes.items():
        if issubclass(cls, nn.Module) and key.endswith(".network"):
            continue  # which gets its sizes from what it is in
        for name, parameter in inspect.signature(cls).parameters.items():
            needed = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if needed and not any(own == f"{key}.{name}" or own.startswith(f"{key}.{name}.") for own in keys):
                return f"--{key}: {cls.__name__} needs --{key}.{name}{_how_to_leave_out(key, name)}"
    return None


def _how_to_leave_out(key: str, name: str) -> str:
    """A network gets those sizes from the model that its class does not insist on."""
    if key not in ("model.encoder", "model.decoder") or name not in _SIZES:
        return ""
    return f", or a class whose {name} is None by default ({name}: {_SIZES[name]} | None = None), which is then the model's own"


def _wrong(key: str, value: Any, classes: dict[str, type]) -> str | None:
    parent, _, name = key.rpartition(".")
    if not parent:
        base = Trainable if key == "model" else pl.LightningDataModule
        return _unknown_class(key, value, base, classes) if isinstance(value, str) else None
    owner = classes.get(parent)
    if owner is None:
        return None
    parameters = inspect.signature(owner).parameters
    if name not in parameters:
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return None
        hint = did_you_mean(name, parameters)
        meant = hint.replace("did you mean ", f"did you mean --{parent}.") or f"; it has {', '.join(parameters)}"
        return f"--{key}: {owner.__name__} has no argument {name}{meant}"
    kinds = list(_kinds(owner, name))
    bases = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, tuple(base for base, _ in _SHELVES))]
    if bases and isinstance(value, str) and str not in kinds and value[:1] not in ("{", "[") and value != "null":
        return _unknown_class(key, value, bases[0], classes)
    return _wrong_value(key, value, kinds)


def _kinds(owner: type, name: str) -> Iterator[Any]:
    """The types that an argument may have, one by one; a literal's values as a Literal."""
    try:
        hint = typing.get_type_hints(owner.__init__).get(name)  # type: ignore[misc]
    except NameError:  # a user's annotation that means something to type checkers alone
        return
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        yield from typing.get_args(hint)
    elif hint is not None:
        yield hint


def _unknown_class(key: str, value: str, base: type, classes: dict[str, type]) -> str | None:
    package = next(package for shelf, package in _SHELVES if issubclass(base, shelf))
    shelf = importlib.import_module(package)
    known = [
        name
        for name in shelf.__all__
        if isinstance(found := getattr(shelf, name), type) and issubclass(found, base) and found is not base
    ]
    if "." not in value and value in (*known, base.__name__):
        classes[key] = getattr(shelf, value)
        return None
    if "." in value:
        try:
            classes[key] = import_class(value, base, f"--{key}")
        except InputError as error:
            name = value.rsplit(".", 1)[1]
            return f"{error}{did_you_mean(name, known)}" if value.startswith("dvae.") else str(error)
        return None
    if not known:
        return f"--{key}: there is no {value} in {package}; another class needs its import path, such as my_module.{value}"
    return f"--{key}: there is no {value} among {', '.join(known)}{did_you_mean(value, known)}"


_NUMBERS = {int: "a whole number", float: "a number", bool: "true or false"}


def _wrong_value(key: str, value: Any, kinds: list[Any]) -> str | None:
    literals = [option for kind in kinds if typing.get_origin(kind) is Literal for option in typing.get_args(kind)]
    others = [kind for kind in kinds if typing.get_origin(kind) is not Literal]
    if not all(kind in (*_NUMBERS, types.NoneType) for kind in others) or not kinds:
        return None
    if value in literals or any(_reads_as(value, kind) for kind in others):
        return None
    expected = [*map(str, literals), *(_NUMBERS[kind] for kind in others if kind in _NUMBERS)]
    expected += ["null"] if types.NoneType in others else []
    return f"--{key} must be {' or '.join(expected)}, got {value!r}"


def _reads_as(value: Any, kind: type) -> bool:
    if kind is types.NoneType:
        return value in (None, "null")
    if kind is bool:
        return isinstance(value, bool) or str(value).lower() in ("true", "false", "yes", "no")
    try:
        kind(str(value))
    except ValueError:
        return False
    return not isinstance(value, bool)
