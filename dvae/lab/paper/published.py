"""What the RELAX paper's tables 1 and 2 say."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ESTIMATORS", "LEARNING_RATES", "PUBLISHED", "ROWS", "STEPS", "Published"]

ROWS = tuple(f"{data}/{model}" for data in ("MNIST", "Omniglot") for model in ("L1", "L2", "NL1"))
"""Data and model of each row."""

ESTIMATORS = ("Concrete", "NVIL", "MuProp", "REBAR", "RELAX")
"""The columns."""

LEARNING_RATES = (5e-3, 1e-3, 5e-4, 1e-4, 5e-5)
"""The grid from which the paper chose."""

STEPS = 2_000_000
"""Updates of a run."""


class Published(NamedTuple):
    """Two cells, nats.

    train: the highest training ELBO that was reached (table 1).
    valid: on the validation set (table 2); None where the paper has no figure. Called a bound of 100 samples there, it agrees with
        an ELBO of one.
    """

    train: float
    valid: float | None = None


_TRAIN = {
    "MNIST/L1": (-111.3, -112.5, -111.7, -111.6, -111.20),
    "MNIST/L2": (-99.62, -99.6, -99.07, -98.22, -98.00),
    "MNIST/NL1": (-102.2, -101.5, -101.1, -81.01, -78.13),
    "Omniglot/L1": (-117.23, -117.44, -117.09, -116.63, -116.57),
    "Omniglot/L2": (-109.95, -109.98, -109.55, -108.71, -108.54),
    "Omniglot/NL1": (-110.4, -109.58, -108.72, -56.76, -56.12),
}
_VALID = {
    "MNIST/L1": (-114.32, -113.62),
    "MNIST/L2": (-101.20, -100.85),
    "MNIST/NL1": (-111.12, -119.19),
    "Omniglot/L1": (-122.44, -122.11),
    "Omniglot/L2": (-115.83, -115.42),
    "Omniglot/NL1": (-127.51, -128.20),
}

PUBLISHED = {
    (row, estimator): Published(train, dict(zip(ESTIMATORS[-2:], _VALID[row], strict=True)).get(estimator))
    for row in ROWS
    for estimator, train in zip(ESTIMATORS, _TRAIN[row], strict=True)
}
"""Grathwohl et al. 2018, tables 1 and 2: by row and estimator."""
