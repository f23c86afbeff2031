"""How long a training step takes: by itself, and through Lightning's Trainer, measured in turns in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from dvae.data import BinarizedMNIST
from dvae.errors import InputError
from dvae.estimators import CATALOGUE
from dvae.latents import Bernoulli
from dvae.models import DiscreteVAE

__all__ = ["ESTIMATORS", "StepTime", "benchmark"]

ESTIMATORS = {name: make for name, make in CATALOGUE.items() if Bernoulli in make().latents and name != "Exact"}
"""The catalogue's estimators for Bernoulli latents, but for the one that enumerates 2^200 states."""


class StepTime(NamedTuple):
    """Milliseconds of one step, the median over repetitions.

    bare: the data module's batches, noise, loss, backward and Adam in a plain loop.
    fit: the same through ``Trainer.fit``, with logging.
    """

    estimator: str
    bare: float
    fit: float

    @property
    def lightning_share(self) -> float:
        """The part of a step through ``Trainer.fit`` that is Lightning's."""
        return 1 - self.bare / self.fit


def benchmark(
    estimators: Sequence[str] = ("REINFORCE", "LOO", "REBAR", "RELAX"),
    *,
    batch_size: int = 24,
    num_layers: int = 1,
    steps: int = 300,
    repetitions: int = 5,
    compile: bool = False,
    progress: Callable[[], None] | None = None,
) -> list[StepTime]:
    """Time the linear model's step on the bundled data; estimators take turns, so that a busy machine slows all alike.

    Arguments:
        estimators: names out of :data:`ESTIMATORS`.
        batch_size: examples in a batch.
        num_layers: stochastic layers.
        steps: timed steps in each repetition.
        repetitions: how often each is timed.
        compile: time the compiled step; compiling is not counted.
        progress: called after each timing.

    Raises:
        InputError: an estimator is unknown, or a number is less than 1.
    """
    unknown = [name for name in estimators if name not in ESTIMATORS]
    if unknown:
        raise InputError(f"estimators must be out of {', '.join(ESTIMATORS)}; got {', '.join(unknown)}")
    for name, value in {"steps": steps, "repetitions": repetitions}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    data = BinarizedMNIST(batch_size=batch_size)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in estimators}
    for _ in range(repetitions):
        for name in estimators:
            for timings, measure in zip(times[name], (_time_bare, _time_fit), strict=True):
                torch.compiler.reset()  # else a new model of an old class counts as a recompilation, and those are limited
                model = DiscreteVAE(ESTIMATORS[name](), num_layers=num_layers, compile=compile, seed=0)
                model.set_mean(data.mean)
                timings.append(measure(model, data, steps))
                if progress is not None:
                    progress()
    return [StepTime(name, *(sorted(timings)[len(timings) // 2] for timings in both)) for name, both in times.items()]


_WARM_UP = 30


def _time_bare(model: DiscreteVAE, data: BinarizedMNIST, steps: int) -> float:
    optimizer = model.configure_optimizers()
    batches = iter(data.train_dataloader())
    for step in range(_WARM_UP + steps):
        if step == _WARM_UP:
            start = time.perf_counter()
        x = next(batches)
        model.step(x, model.noise(x.shape[0])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return 1e3 * (time.perf_counter() - start) / steps


class _Clock(pl.Callback):
    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == _WARM_UP:
            self.start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.end = time.perf_counter()


def _time_fit(model: DiscreteVAE, data: BinarizedMNIST, steps: int) -> float:
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=_WARM_UP + steps,
            accelerator="cpu",
            logger=CSVLogger(folder),
            callbacks=[clock],
            log_every_n_steps=200,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data)
    return 1e3 * (clock.end - clock.start) / steps
