"""All estimators of the library by name, and what each says of itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

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

__all__ = ["CATALOGUE", "Facts", "facts"]


def _entry(cls: type[GradientEstimator], **arguments: Any) -> tuple[str, Callable[[], GradientEstimator]]:
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return cls.__name__ + (f"({listed})" if listed else ""), functools.partial(cls, **arguments)


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
