"""How long a training step takes: eager, compiled and of several models at once; by itself and through Lightning's Trainer."""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dvae.data import BinarizedMNIST, TensorLoader
from dvae.errors import InputError
from dvae.estimators import CATALOGUE, GradientEstimator
from dvae.latents import Bernoulli
from dvae.training.module import DiscreteVAE, joint_optimizer
from dvae.training.step import step_loss
from dvae.training.sweep import Replicas
from dvae.training.whole_step import WholeStep

__all__ = ["ESTIMATORS", "GROWTH", "MODES", "Pace", "StepTime", "benchmark", "count_products", "growth", "long_run"]


ESTIMATORS = {name: make for name, make in CATALOGUE.items() if Bernoulli in make().latents and name != "Exact"}
"""The catalogue's estimators for Bernoulli latents, but for the one that enumerates 2^200 states."""

MODES = ("eager", "compiled", "replicas")
"""One operation after the other; the whole step as one function; that of several models at once."""

_WARM_UP, _BLOCK = 30, 50


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
        estimators: names out of :data:`ESTIMATORS`.
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
    for given, known, what in ((estimators, ESTIMATORS, "estimators"), (modes, MODES, "modes")):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise InputError(f"{what} must be out of {', '.join(known)}; got {', '.join(unknown)}")
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
            subjects.append(_Subject(name, mode, data, replicas if mode == "replicas" else 1, device, model_options))
            subjects[-1].run(_WARM_UP)
            if progress is not None:
                progress()
    rates: list[float] = []
    times: dict[_Subject, list[float]] = {subject: [] for subject in subjects}
    fits: dict[_Subject, tuple[float, float]] = {}
    for repetition in range(repetitions):
        for subject in subjects:
            rates.append(_matrix_rate(batch_size, device))
            times[subject].append(subject.run(steps))
            if repetition == repetitions // 2:
                fits[subject] = subject.fit(3, max(1, steps // _BLOCK) * _BLOCK)
            if progress is not None:
                progress()
    rate = _median(rates)
    return [
        StepTime(s.name, s.mode, _median(bare), *fits[s], s.flops, 1e3 * s.flops / rate, s.memory, len(s.models), batch_size)
        for s, bare in times.items()
    ]


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
    if estimator not in ESTIMATORS:
        raise InputError(f"estimator must be out of {', '.join(ESTIMATORS)}; got {estimator}")
    if steps < 1000:
        raise InputError(f"steps must be at least 1000, got {steps}")
    subject = _Subject(estimator, "compiled", BinarizedMNIST(batch_size=batch_size), 1, torch.device(device), model_options)
    subject.run(_WARM_UP)
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
        estimators: names out of :data:`ESTIMATORS`.
        steps: timed steps of each.
        device: where.
        progress: called after each compilation; there are ``len(estimators)`` times the values in :data:`GROWTH`.

    Returns:
        for each quantity and estimator, milliseconds at the quantity's values (K only where the estimator can have it).
    """
    times: dict[str, dict[str, dict[int, float]]] = {}
    for quantity, values in GROWTH.items():
        subjects = {}
        for name, value in itertools.product(estimators, values):
            options: dict[str, Any] = {"latents D": {"num_latents": value}, "layers": {"num_layers": value}}.get(quantity, {})
            data = BinarizedMNIST(batch_size=value if quantity == "batch size" else 24)
            count = value if quantity == "replicas" else 1
            mode = "replicas" if count > 1 else "compiled"
            try:
                make = _with_samples(name, value) if quantity == "samples K" else ESTIMATORS[name]
                subject = _Subject(name, mode, data, count, torch.device(device), options, make)
                subject.run(_WARM_UP)
                subjects[name, value] = subject
            except InputError:
                pass  # an estimator that needs more samples
            if progress is not None:
                progress()
        # In turns, so that what else the machine does meanwhile falls on all alike.
        rounds = [{key: subject.run(steps) for key, subject in subjects.items()} for _ in range(3)]
        times[quantity] = {name: {} for name in estimators}
        for name, value in subjects:
            times[quantity][name][value] = _median([turn[name, value] for turn in rounds])
    return times


def _with_samples(name: str, number: int) -> Callable[[], GradientEstimator]:
    estimator = ESTIMATORS[name]()
    arguments = {**estimator.config["init_args"], "num_samples": number}
    type(estimator)(**arguments)  # it may refuse
    return lambda: type(estimator)(**arguments)


def count_products(model: DiscreteVAE, batch_size: int) -> int:
    """Floating-point operations of all matrix products and convolutions of one step, forward and backward."""
    counter = _Products()
    x = torch.zeros(batch_size, model.num_pixels, device=model.mean.device)
    with counter:
        step_loss(model, x, model.noise(batch_size)).loss.backward()
    model.zero_grad()
    return counter.flops


class _Products(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _Subject:
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
        self.make = make or ESTIMATORS[name]
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
            if step % _BLOCK == _BLOCK - 1 or step == steps - 1:
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
                max_steps=(stretches + 1) * length + _BLOCK,
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
        fit = _median(turns.fit)
        return fit, fit / _median(turns.bare)

    def _new(self, count: int) -> list[DiscreteVAE]:
        steps = 1 if self.mode == "eager" else _BLOCK
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

    def __init__(self, subject: _Subject, length: int) -> None:
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


def _matrix_rate(batch_size: int, device: torch.device) -> float:
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


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
