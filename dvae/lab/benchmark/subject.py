"""Models of one estimator in one mode, to be timed again and again."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from dvae.data import BinarizedMNIST, TensorLoader
from dvae.errors import InputError
from dvae.estimators import CATALOGUE, GradientEstimator, named
from dvae.lab.benchmark.algorithms import BLOCK
from dvae.lab.benchmark.products import count_products
from dvae.latents import Bernoulli
from dvae.training.module import DiscreteVAE
from dvae.training.run import joint_optimizer
from dvae.training.sweep import Replicas
from dvae.training.whole_step import WholeStep

__all__ = ["ESTIMATORS", "WARM_UP", "Subject", "maker", "matrix_rate"]


WARM_UP = 30


ESTIMATORS = {name: make for name, make in CATALOGUE.items() if Bernoulli in make().latents and name != "Exact"}
"""The catalogue's estimators for Bernoulli latents, but for the one that enumerates 2^200 states."""


def maker(text: str) -> Callable[[], GradientEstimator]:
    """What makes the estimator that an expression names, see :func:`dvae.estimators.named`.

    Raises:
        InputError: there is none, it is not for Bernoulli latents, or it goes through all states.
    """
    found = named(text)
    estimator = found.make()
    estimator.require_support(Bernoulli)
    if estimator.evaluations_per_sample is None:
        raise InputError(f"estimators must not enumerate the 2^200 states, got {text}")
    return found.make


class Subject:
    """Models of one estimator in one mode, made once, and timed again and again."""

    def __init__(
        self,
        name: str,
        mode: str,
        data: BinarizedMNIST,
        count: int,
        device: torch.device,
        options: dict[str, Any],
        make: Callable[[], GradientEstimator] | None = None,
    ) -> None:
        self.name, self.mode, self.data, self.device, self.options = name, mode, data, device, options
        self.make = make or maker(name)
        _reset_peak(device)
        self.models = self._new(count)
        self.flops = count * count_products(self.models[0], data.batch_size)
        self.optimizer = joint_optimizer(self.models)
        self.batches = self._batches(count)
        self.iteration = 0
        self.update = None if mode == "eager" else WholeStep(self.models, self.optimizer, next(self.batches)[0].reshape(-1, 784))
        self.module: pl.LightningModule | None = None
        self._memory: float | None = None

    @property
    def memory(self) -> float:
        """MiB at the peak of the first run."""
        assert self._memory is not None
        return self._memory

    def run(self, steps: int) -> float:
        """Milliseconds a step in a plain loop."""
        _wait(self.device)
        start = time.perf_counter()
        for step in range(steps):
            x = next(self.batches)
            iteration, self.iteration = self.iteration, self.iteration + 1
            if self.update is None:
                model = self.models[0]
                model.step(x[0], model.training_noise(len(x[0]), model.noise_stream(0), iteration)).loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                continue
            self.update(x if len(self.models) > 1 else x[0], iteration)
            if step % BLOCK == BLOCK - 1 or step == steps - 1:
                self.update.end_block()
        _wait(self.device)
        seconds = time.perf_counter() - start
        if self._memory is None:
            self._memory = _peak(self.device)
        return 1e3 * seconds / steps

    def fit(self, stretches: int, length: int) -> tuple[float, float]:
        """Milliseconds a step through ``Trainer.fit``, the median over stretches of it, and their ratio to the plain loop's.

        The plain loop runs between the stretches, so that what else the machine does meanwhile falls on both alike.
        """
        models = self._new(len(self.models))
        module: pl.LightningModule = Replicas(models) if self.mode == "replicas" else models[0]
        turns = _Turns(self, length)
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                max_steps=(stretches + 1) * length + BLOCK,
                accelerator="cpu" if self.device.type == "cpu" else "gpu",
                devices=1,
                logger=CSVLogger(folder),
                callbacks=[turns],
                log_every_n_steps=200,
                limit_val_batches=0,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, BinarizedMNIST(batch_size=self.data.batch_size))
        fit = median(turns.fit)
        return fit, fit / median(turns.bare)

    def _new(self, count: int) -> list[DiscreteVAE]:
        steps = 1 if self.mode == "eager" else BLOCK
        models = []
        for seed in range(count):
            torch.manual_seed(seed)
            own = {"compile": self.mode != "eager", "steps_per_execution": steps, "seed": seed, **self.options}
            models.append(DiscreteVAE(self.make(), **own).to(self.device))
            models[-1].set_mean(self.data.mean.to(self.device))
        return models

    def _batches(self, count: int) -> Iterator[Tensor]:
        data = self.data.split("train").to(self.device)
        # Of one size, as nearly all batches of an epoch are.
        loader = TensorLoader(data, batch_size=self.data.batch_size, shuffle=True, drop_last=True, seed=list(range(count)))
        while True:
            yield from loader


class _Turns(pl.Callback):
    """Times each stretch of a run but the first, in which it is compiled, and stops the run for a stretch of the plain loop."""

    takes_blocks = True

    def __init__(self, subject: Subject, length: int) -> None:
        self.subject, self.length = subject, length
        self.fit: list[float] = []
        self.bare: list[float] = []
        self._start: float | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step % self.length or trainer.global_step == 0:
            return
        _wait(self.subject.device)
        if self._start is not None:
            self.fit.append(1e3 * (time.perf_counter() - self._start) / self.length)
        self.bare.append(self.subject.run(self.length))
        self._start = time.perf_counter()


def matrix_rate(batch_size: int, device: torch.device) -> float:
    """Operations a second of the linear model's largest product, [B, 784] times [784, 200]."""
    x, weight = torch.rand(batch_size, 784, device=device), torch.rand(784, 200, device=device)
    out = torch.empty(batch_size, 200, device=device)
    best = 0.0
    for _ in range(5):
        _wait(device)
        start = time.perf_counter()
        for _ in range(100):
            torch.mm(x, weight, out=out)
        _wait(device)
        best = max(best, 100 * 2 * batch_size * 784 * 200 / (time.perf_counter() - start))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    try:
        import resource  # Unix alone has it
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of the process so far, in bytes on a Mac
