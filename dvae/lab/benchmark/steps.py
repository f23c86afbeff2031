"""The step of every estimator, eager, compiled and of several models; by itself and through Lightning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch

from dvae.data import BinarizedMNIST
from dvae.errors import InputError
from dvae.lab.benchmark.algorithms import BLOCK
from dvae.lab.benchmark.subject import WARM_UP, Subject, maker, matrix_rate

__all__ = ["MODES", "StepTime", "benchmark"]


MODES = ("eager", "compiled", "replicas")
"""One operation after the other; the whole step as one function; that of several models at once."""


class StepTime(NamedTuple):
    """One step of one estimator in one mode, in milliseconds.

    bare: a data module's batches, noise, loss, gradients and Adam in a plain loop; the median over repetitions.
    fit: the same through ``Trainer.fit``, with logging, 50 steps to a ``training_step`` unless eager; the median over stretches.
    fit_ratio: that, over the plain loop's time in turns with these stretches.
    flops: of the step's matrix products, counted.
    floor: what these would take at the rate of the largest of them, measured in turns with the rest.
    memory: MiB at the peak: of the process on a CPU, of tensors on a GPU; NaN where the system does not tell, as on Windows.
    models: how many it trains.
    """

    estimator: str
    mode: str
    bare: float
    fit: float
    fit_ratio: float
    flops: int
    floor: float
    memory: float
    models: int
    batch_size: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **self._asdict(),
            "steps_per_second": 1e3 / self.fit,
            "examples_per_second": 1e3 * self.models * self.batch_size / self.fit,
        }


def benchmark(
    estimators: Sequence[str] = ("REINFORCE", "LOO", "REBAR", "RELAX"),
    modes: Sequence[str] = MODES,
    *,
    batch_size: int = 24,
    replicas: int = 8,
    steps: int = 300,
    repetitions: int = 5,
    device: str | torch.device = "cpu",
    progress: Callable[[], None] | None = None,
    **model_options: Any,
) -> list[StepTime]:
    """Time the linear model's step on the bundled data; all take turns, so that a busy machine slows all alike.

    Arguments:
        estimators: expressions, see :func:`dvae.estimators.named`.
        modes: out of :data:`MODES`.
        batch_size: examples in a batch of one model.
        replicas: models in the mode of that name.
        steps: timed steps in each repetition, and about as many in each of three stretches of ``Trainer.fit``.
        repetitions: how often each is timed; compiling is not counted.
        device: where.
        progress: called after each timing, of which there are ``len(estimators) * len(modes) * (repetitions + 1)``.
        model_options: further arguments of the model, such as ``num_layers``.

    Raises:
        InputError: an estimator or a mode is unknown, or a number is less than 1.
    """
    if unknown := [name for name in modes if name not in MODES]:
        raise InputError(f"modes must be out of {', '.join(MODES)}; got {', '.join(unknown)}")
    for name in estimators:
        maker(name)
    for name, value in {"steps": steps, "repetitions": repetitions}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if "replicas" in modes and replicas < 2:
        raise InputError(f"replicas must be at least 2, got {replicas}")
    device = torch.device(device)
    data = BinarizedMNIST(batch_size=batch_size)
    subjects = []
    for name in estimators:
        for mode in modes:
            subjects.append(Subject(name, mode, data, replicas if mode == "replicas" else 1, device, model_options))
            subjects[-1].run(WARM_UP)
            if progress is not None:
                progress()
    rates: list[float] = []
    times: dict[Subject, list[float]] = {subject: [] for subject in subjects}
    through_trainer: dict[Subject, tuple[float, float]] = {}
    for repetition in range(repetitions):
        for subject in subjects:
            rates.append(matrix_rate(batch_size, device))
            times[subject].append(subject.run(steps))
            if repetition == repetitions // 2:
                through_trainer[subject] = subject.fit(3, max(1, steps // BLOCK) * BLOCK)
            if progress is not None:
                progress()
    rate = median(rates)
    return [
        StepTime(
            s.name, s.mode, median(bare), *through_trainer[s], s.flops, 1e3 * s.flops / rate, s.memory, len(s.models), batch_size
        )
        for s, bare in times.items()
    ]
