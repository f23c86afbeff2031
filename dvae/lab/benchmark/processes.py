"""How a run is shared by several processes: the batches of one model, or several models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dvae.errors import InputError
from dvae.estimators import named
from dvae.lab.benchmark.subject import maker
from dvae.report.curves import seconds_per_step

__all__ = ["SHARED", "ProcessSpeed", "process_speed", "projected"]

SHARED = ("batches of one model", "models")
"""What the processes share."""

# Logged every so many updates; the first one, by which the step is compiled, and the last are the ends of what is timed.
_LOGGED = 100


class ProcessSpeed(NamedTuple):
    """What so many processes do.

    shared: out of :data:`SHARED`; of one model each process has a batch of its own and gradients are averaged, of several models
        each process trains its part.
    processes: how many.
    milliseconds: of an update of the run.
    images_per_second: of all processes and models.
    speedup: of these, over one process.
    """

    shared: str
    processes: int
    milliseconds: float
    images_per_second: float
    speedup: float


def process_speed(
    estimator: str = "RELAX",
    processes: Sequence[int] = (1, 2),
    *,
    batch_size: int = 24,
    models: int = 8,
    steps: int = 1000,
    progress: Callable[[], None] | None = None,
) -> list[ProcessSpeed]:
    """Time ``dvae fit`` of the linear model on the CPU, compiled, with one thread in each process.

    Arguments:
        estimator: an expression, see :func:`dvae.estimators.named`.
        processes: how many, from 1 on.
        batch_size: examples in a batch of one model and process.
        models: replicas, where these are shared.
        steps: of each run.
        progress: called after each run, of which there are two for each number of processes.

    Raises:
        InputError: an argument is outside its range, or a run fails.
    """
    maker(estimator)
    if not processes or processes[0] != 1 or list(processes) != sorted(set(processes)):
        raise InputError(f"processes must be numbers that grow from 1, what others are compared with, got {list(processes)}")
    if models < processes[-1]:
        raise InputError(f"replicas must be at least the largest number of processes, {processes[-1]}, got {models}")
    if steps < 3 * _LOGGED:
        raise InputError(f"steps must be at least {3 * _LOGGED}, of which some are timed, got {steps}")
    found: list[ProcessSpeed] = []
    for shared in SHARED:
        own: list[ProcessSpeed] = []
        for number in processes:
            flags = ["--replicas", str(models)] if shared == "models" else []
            seconds = _seconds(estimator, number, batch_size, steps, flags)
            images = batch_size * (models if shared == "models" else number) / seconds
            first = own[0].images_per_second if own else images
            own.append(ProcessSpeed(shared, number, 1e3 * seconds, images, images / first))
            if progress is not None:
                progress()
        found += own
    return found


def projected(times: Sequence[ProcessSpeed], number: int) -> ProcessSpeed:
    """What more processes would do, each on a core of its own, if the largest number measured is a guide.

    Of one model an update takes as long as one process's, and the time of averaging, which in a ring grows as (n - 1) / n with the
    number n of processes. Several models do not talk: the speed-up for each process stays what it is.

    Arguments:
        times: of one kind, one process first.
        number: of processes.
    """
    one, last = times[0], times[-1]
    if one.shared == "models":
        speedup = last.speedup / last.processes * number
        return ProcessSpeed(one.shared, number, one.milliseconds / speedup, one.images_per_second * speedup, speedup)
    share = (number - 1) / number / ((last.processes - 1) / last.processes)
    milliseconds = one.milliseconds + (last.milliseconds - one.milliseconds) * share
    speedup = number * one.milliseconds / milliseconds
    return ProcessSpeed(one.shared, number, milliseconds, one.images_per_second * speedup, speedup)


def _seconds(estimator: str, processes: int, batch_size: int, steps: int, flags: Sequence[str]) -> float:
    spread = ["--trainer.strategy", "ddp", "--trainer.devices", str(processes)] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        config = json.dumps(named(estimator).make().config)
        command = [sys.executable, "-m", "dvae", "fit", "--config", "l1", "--model.estimator", config]
        command += ["--model.compile", "true", "--data.batch_size", str(batch_size), "--trainer.max_steps", str(steps)]
        command += ["--trainer.accelerator", "cpu", "--threads", "1", "--trainer.log_every_n_steps", str(_LOGGED)]
        command += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false", "--runs", folder, *spread, *flags]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        seconds = seconds_per_step(folder) if done.returncode == 0 else None
    if seconds is None:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise InputError(f"processes: dvae fit with {processes} of them failed: {reason}")
    return seconds
