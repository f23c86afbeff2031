"""Which likelihood takes what data."""

from __future__ import annotations

from torch import Tensor

from dvae.errors import InputError
from dvae.likelihoods.base import Likelihood
from dvae.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from dvae.likelihoods.counts import NegativeBinomial
from dvae.likelihoods.gaussian import Normal
from dvae.likelihoods.logistic import DiscretizedLogistic

__all__ = ["check_values", "suited"]

# In the order in which they are proposed; the first that covers the data says the most about them.
_PROPOSED = {
    Bernoulli: "bits",
    ContinuousBernoulli: "grey levels",
    DiscretizedLogistic: "8-bit images",
    NegativeBinomial: "counts",
    Normal: "real numbers",
}


def suited(x: Tensor) -> list[str]:
    """Names of likelihoods for values such as x's, the most telling ones; none for values that are not finite."""
    return [cls.__name__ for cls in _PROPOSED if cls().covers(x)][:2]


def check_values(likelihood: Likelihood, x: Tensor) -> None:
    """Nothing, where the likelihood takes x's values.

    Raises:
        InputError: it does not; the message names a likelihood that does.
    """
    try:
        likelihood.check(x)
    except InputError as error:
        kinds = {cls.__name__: kind for cls, kind in _PROPOSED.items()}
        names = suited(x)
        hint = ", which no likelihood takes"
        if names:
            listed = " or ".join(f"{name} for {kinds[name]}" for name in names)
            hint = f": take likelihood={listed} (--model.likelihood {names[0]})"
        if likelihood.high == 1 and DiscretizedLogistic().covers(x):
            hint += "; divide_by=255, of the data, makes grey levels in [0, 1] of bytes"
        raise InputError(f"{error} under {type(likelihood).__name__}{hint}") from None
