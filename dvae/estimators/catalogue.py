"""All estimators of the library by name, and what each says of itself."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from dvae.config import import_class, public_path
from dvae.errors import InputError, did_you_mean
from dvae.estimators.antithetic import ARM, ARMS, DisARM
from dvae.estimators.base import GradientEstimator
from dvae.estimators.concrete import Concrete
from dvae.estimators.exact import Exact
from dvae.estimators.multi_sample import VIMCO, MultiSampleDisARM
from dvae.estimators.reinforce import LOO, NVIL, REINFORCE
from dvae.estimators.relax import REBAR, RELAX
from dvae.estimators.reparameterization import LAX, Reparameterization
from dvae.estimators.stein import RODEO
from dvae.estimators.straight_through import GumbelStraightThrough, ReinMax, StraightThrough
from dvae.estimators.taylor import DoubleCV, MuProp

__all__ = ["CATALOGUE", "Facts", "Named", "facts", "named"]

_PACKAGE = "dvae.estimators."


def _expression(name: str, arguments: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{argument}={value!r}" for argument, value in arguments.items())
    return name + (f"({listed})" if listed else "")


def _entry(cls: type[GradientEstimator], **arguments: Any) -> tuple[str, Callable[[], GradientEstimator]]:
    return _expression(cls.__name__, arguments), functools.partial(cls, **arguments)


CATALOGUE: dict[str, Callable[[], GradientEstimator]] = dict(
    [
        _entry(Exact),
        _entry(REINFORCE),
        _entry(REINFORCE, baseline="moving_average"),
        _entry(NVIL),
        _entry(LOO),
        _entry(LOO, num_samples=4),
        _entry(ARM),
        _entry(DisARM),
        _entry(ARMS),
        _entry(MuProp),
        _entry(DoubleCV),
        _entry(RODEO),
        _entry(RODEO, num_samples=3),
        _entry(REBAR),
        _entry(REBAR, coupled=False),
        _entry(RELAX),
        _entry(RELAX, coupled=False),
        _entry(RELAX, black_box=True),
        _entry(VIMCO, num_samples=2),
        _entry(VIMCO, num_samples=2, mean="arithmetic"),
        _entry(MultiSampleDisARM, num_samples=2),
        _entry(Reparameterization),
        _entry(LAX),
        _entry(Concrete),
        _entry(StraightThrough),
        _entry(GumbelStraightThrough),
        _entry(ReinMax),
    ]
)
"""How to make each estimator of the library, with its notable variants, under the expression that makes it."""


class Named(NamedTuple):
    """What an expression such as ``LOO(num_samples=4)`` names."""

    path: str
    cls: type[GradientEstimator]
    arguments: dict[str, Any]

    @property
    def label(self) -> str:
        """The expression in its shortest form."""
        return _expression(self.path.removeprefix(_PACKAGE), self.arguments)

    def make(self) -> GradientEstimator:
        """The estimator, a new one in each call."""
        return self.cls(**self.arguments)


def named(text: str, further: Mapping[str, Any] = MappingProxyType({}), argument: str = "estimators") -> Named:
    """The estimator that a text means: ``RELAX``, ``LOO(num_samples=4)``, ``my_package.Mine`` or ``my_package.Mine(rate=0.1)``.

    Arguments:
        text: a name that this package exports or an import path, and arguments by name.
        further: arguments beside those in the text.
        argument: what messages call it.

    Raises:
        InputError: there is no such estimator, or it does not take these arguments.
    """
    name, arguments = _parsed(text, argument)
    arguments = {**arguments, **further}
    known = _exported()
    if "." not in name and name not in known:
        raise InputError(f"{argument} must be import paths or out of {', '.join(known)}; got {name}{did_you_mean(name, known)}")
    cls = import_class(name if "." in name else f"{_PACKAGE}{name}", GradientEstimator, argument)
    parameters = inspect.signature(cls).parameters
    for own in arguments:
        if own not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            hint = did_you_mean(own, parameters) or f"; it has {', '.join(parameters) or 'none'}"
            raise InputError(f"{argument}: {cls.__name__} has no argument {own}{hint}")
    found = Named(public_path(cls), cls, arguments)
    try:
        with torch.random.fork_rng(devices=[]):  # some draw initial weights at once
            found.make()
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument}: cannot make {text}: {error}") from None
    return found


def _exported() -> list[str]:
    """The names of this package's estimators, an alias too."""
    package = vars(sys.modules[__package__])
    classes = {name: package[name] for name in package["__all__"] if isinstance(package[name], type)}
    return sorted(name for name, cls in classes.items() if issubclass(cls, GradientEstimator) and cls is not GradientEstimator)


def _parsed(text: str, argument: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of an expression."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        arguments: dict[str, Any] = {}
        if isinstance(node, ast.Call):
            arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
            if node.args or len(arguments) < len(node.keywords):  # by place, by **, or one twice
                raise ValueError
            node = node.func
    except (SyntaxError, TypeError, ValueError):
        raise InputError(
            f"{argument} must be names or import paths, with arguments as in LOO(num_samples=4) or RELAX(coupled=False), got {text}"
        ) from None
    return ast.unparse(node), arguments


class Facts(NamedTuple):
    """What a class says of itself, as text: for a table."""

    name: str
    summary: str
    evaluations: str
    differentiates: str
    latents: str
    unbiased: str
    source: str


def facts(cls: type[GradientEstimator]) -> Facts:
    """An estimator's declared facts, and the first line of its docstring.

    Arguments:
        cls: a class derived from :class:`dvae.GradientEstimator`.

    Example:
        >>> dvae.estimators.facts(dvae.estimators.REBAR).source
        'Tucker et al. 2017'
    """
    parameters = inspect.signature(cls).parameters
    samples = parameters["num_samples"].default if "num_samples" in parameters else 1
    per_sample = cls.evaluations_per_sample
    if per_sample is None:
        evaluations = "all states"
    elif samples != 1:
        evaluations = "K" if per_sample == 1 else f"{per_sample} K"
    else:
        evaluations = str(per_sample)
    if "size" in parameters:
        evaluations = "n"
    return Facts(
        cls.__name__,
        (inspect.getdoc(cls) or "").split("\n")[0].rstrip("."),
        evaluations,
        "yes" if cls.differentiates else "no",
        ", ".join(family.__name__ for family in cls.latents),
        "yes" if cls.unbiased else "no",
        cls.reference,
    )
