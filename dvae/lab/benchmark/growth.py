"""How a compiled step grows, and its rate along a run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch

from dvae.data import BinarizedMNIST
from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.lab.benchmark.subject import WARM_UP, Subject, maker

__all__ = ["GROWTH", "Pace", "growth", "long_run"]


class Pace(NamedTuple):
    """The rate along a run: milliseconds a step in each thousand of steps, by the wall clock and of the CPU."""

    wall: list[float]
    cpu: list[float]

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values, for JSON."""
        return self._asdict()


def long_run(
    estimator: str = "RELAX",
    steps: int = 50_000,
    *,
    batch_size: int = 24,
    device: str | torch.device = "cpu",
    progress: Callable[[], None] | None = None,
    **model_options: Any,
) -> Pace:
    """Train with the bare compiled step, and measure every thousand steps.

    Arguments:
        estimator, batch_size, device, model_options: see :func:`benchmark`.
        steps: of the run; whole thousands of them are measured.
        progress: called after each thousand.

    Raises:
        InputError: the estimator is unknown, or there is not one thousand.
    """
    maker(estimator)
    if steps < 1000:
        raise InputError(f"steps must be at least 1000, got {steps}")
    subject = Subject(estimator, "compiled", BinarizedMNIST(batch_size=batch_size), 1, torch.device(device), model_options)
    subject.run(WARM_UP)
    wall, cpu = [], []
    for _ in range(steps // 1000):
        start = time.process_time()
        wall.append(subject.run(1000))
        cpu.append(time.process_time() - start)
        if progress is not None:
            progress()
    return Pace(wall, cpu)


GROWTH = {
    "batch size": (12, 24, 48, 96),
    "latents D": (50, 100, 200, 400),
    "samples K": (1, 2, 4, 8),
    "layers": (1, 2, 3),
    "replicas": (1, 2, 4, 8),
}
"""What :func:`growth` varies, one at a time."""


def growth(
    estimators: Sequence[str],
    *,
    steps: int = 300,
    device: str | torch.device = "cpu",
    progress: Callable[[], None] | None = None,
) -> dict[str, dict[str, dict[int, float]]]:
    """Milliseconds of the bare compiled step against batch size, D, K, layers and replicas, one varied at a time.

    Arguments:
        estimators: expressions, see :func:`dvae.estimators.named`.
        steps: timed steps of each.
        device: where.
        progress: called after each compilation; there are ``len(estimators)`` times the values in :data:`GROWTH`.

    Returns:
        for each quantity and estimator, milliseconds at the quantity's values (K only where the estimator can have it).

    Raises:
        InputError: an estimator is unknown.
    """
    for name in estimators:
        maker(name)
    times: dict[str, dict[str, dict[int, float]]] = {}
    for quantity, values in GROWTH.items():
        subjects = {}
        for name, value in itertools.product(estimators, values):
            options: dict[str, Any] = {"latents D": {"num_latents": value}, "layers": {"num_layers": value}}.get(quantity, {})
            data = BinarizedMNIST(batch_size=value if quantity == "batch size" else 24)
            count = value if quantity == "replicas" else 1
            mode = "replicas" if count > 1 else "compiled"
            try:
                make = _with_samples(name, value) if quantity == "samples K" else maker(name)
                subject = Subject(name, mode, data, count, torch.device(device), options, make)
                subject.run(WARM_UP)
                subjects[name, value] = subject
            except InputError:
                pass  # an estimator that needs more samples
            if progress is not None:
                progress()
        # In turns, so that what else the machine does meanwhile falls on all alike.
        rounds = [{key: subject.run(steps) for key, subject in subjects.items()} for _ in range(3)]
        times[quantity] = {name: {} for name in estimators}
        for name, value in subjects:
            times[quantity][name][value] = median([turn[name, value] for turn in rounds])
    return times


def _with_samples(name: str, number: int) -> Callable[[], GradientEstimator]:
    estimator = maker(name)()
    arguments = {**estimator.config["init_args"], "num_samples": number}
    type(estimator)(**arguments)  # it may refuse
    return lambda: type(estimator)(**arguments)
