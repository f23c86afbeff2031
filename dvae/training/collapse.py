"""What is said of a model that does not use its code: posterior collapse (Bowman et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LEAST_KL", "NO_UNITS", "PATIENCE", "low_kl", "sentence"]

PATIENCE = 1000
"""Updates of theta before a model is expected to use its code."""
LEAST_KL = 0.1
"""Nats, the mean over a log's interval: a code of less says nothing."""
NO_UNITS = "no latent's mean under q(b | x) varies over the validation examples (0 active units)"


def low_kl(nats: float) -> str:
    """The figure behind the warning, in words."""
    return f"its KL is {nats:.2g} nats, less than {LEAST_KL:g}"


def sentence(figures: Mapping[str, str], update: int) -> str:
    """The warning.

    Arguments:
        figures: what each model's code does not do, by what the model is called.
        update: so many were done.
    """
    owners = "; ".join(f"{owner}: {figure}" for owner, figure in figures.items())
    return (
        f"the code is not used after {update} updates, {owners}. Try another activation or learning rate, a weight of the KL that "
        "grows from 0 (--schedule '{beta: {0: 0, 5000: 1}}'), some nats of it that are free (free_bits), or a weaker decoder"
    )
