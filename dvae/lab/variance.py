"""The variance of every estimator's gradient at one trained model, per draw, per evaluation of f and per second."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvae.data import Examples, examples_of
from dvae.errors import InputError
from dvae.estimators import CATALOGUE, GradientEstimator, named
from dvae.latents import Latent
from dvae.models import VAE
from dvae.training.gradient_variance import log_gradient_variance
from dvae.training.step import step_loss

__all__ = ["VarianceReport", "applicable_estimators", "compare_variance"]


class VarianceReport(NamedTuple):
    """One estimator's variance; all logarithms are natural.

    logits, encoder: log-variance of the gradient with respect to logits and encoder, see
        :class:`dvae.metrics.GradientVariance`, with standard errors.
    evaluations: of f per example in one draw.
    milliseconds: of one draw, the median.
    """

    estimator: str
    unbiased: bool
    logits: float
    encoder: float
    logits_error: float
    encoder_error: float
    evaluations: int
    milliseconds: float

    @property
    def encoder_per_evaluation(self) -> float:
        """log of (variance of the encoder's gradient, times evaluations): what averaging over a budget of evaluations leaves."""
        return self.encoder + math.log(self.evaluations)

    @property
    def encoder_per_second(self) -> float:
        """log of (variance of the encoder's gradient, times seconds)."""
        return self.encoder + math.log(self.milliseconds / 1000)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {
            "encoder_per_evaluation": self.encoder_per_evaluation,
            "encoder_per_second": self.encoder_per_second,
        }


def applicable_estimators(latent: type[Latent]) -> list[str]:
    """Names of the catalogue's estimators of d E[f] for these latents; not those that enumerate, nor those of another objective."""
    made = {name: make() for name, make in CATALOGUE.items()}
    return [
        name
        for name, estimator in made.items()
        if issubclass(latent, estimator.latents) and not estimator.multi_sample and estimator.evaluations_per_sample is not None
    ]


def compare_variance(
    model: VAE,
    data: Any,
    estimators: Sequence[str] | None = None,
    *,
    num_draws: int = 1000,
    phi_steps: int = 2000,
    phi_lr: float = 0.001,
    batch_size: int = 24,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[VarianceReport]:
    """Measure estimators at a model's fixed encoder, decoder and prior, on one batch, with the same number of draws.

    Control variates and running averages are fitted first, at those fixed parameters, on the training set. An estimator keeps the
    control variate that the model was trained with only by being fitted again: all start alike.

    Arguments:
        model: a trained model; it is not changed.
        data: its data, see :func:`dvae.data.examples_of`; phi is fitted on batches of the training set, the variance measured on
            the first examples of the test set.
        estimators: expressions, see :func:`dvae.estimators.named`; all of :func:`applicable_estimators` where it is None.
        num_draws: draws of the noise for each, at least 20.
        phi_steps: Adam steps on phi.
        phi_lr: their learning rate.
        batch_size: examples in a batch.
        seed: of all noise.
        progress: called with an estimator's name when it is done.

    Raises:
        InputError: an argument is outside its range, or an estimator unknown or not for these latents.
    """
    if num_draws < 20:
        raise InputError(f"num_draws must be at least 20, got {num_draws}")
    if phi_steps < 0 or batch_size < 1:
        raise InputError(f"phi_steps must be at least 0 and batch_size at least 1, got {phi_steps} and {batch_size}")
    names = applicable_estimators(model.latent.family) if estimators is None else list(estimators)
    # All are checked before the first is measured.
    models = {name: _with_estimator(model, named(name).make(), seed) for name in names}
    key = getattr(model, "input_key", None)
    x = model.check_input(examples_of(data, "test", input_key=key).first(batch_size).to(model.device))
    train = examples_of(data, "train", input_key=key)
    reports = []
    for name, candidate in models.items():
        _fit_phi(candidate, train, phi_steps, phi_lr, batch_size, seed)
        estimator = candidate.estimators[0]
        variance = log_gradient_variance(candidate, x, num_draws, seed)
        evaluations = estimator.num_evaluations
        assert evaluations is not None
        reports.append(VarianceReport(name, estimator.unbiased, *variance, evaluations, _milliseconds(candidate, x)))
        if progress is not None:
            progress(name)
    return reports


def _with_estimator(model: VAE, estimator: GradientEstimator, seed: int) -> VAE:
    """A copy of the model with its encoder, decoder and prior, and fresh estimators."""
    estimator.require_support(model.latent.family)
    if estimator.num_evaluations is None:
        raise InputError(f"estimators must not enumerate all states, got {type(estimator).__name__}")
    if estimator.multi_sample:
        raise InputError(f"estimators must be for the ELBO, got {type(estimator).__name__}, which is for the K-sample bound")
    candidate = copy.deepcopy(model)
    own = [copy.deepcopy(estimator) for _ in range(model.num_layers)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for index, each in enumerate(own):
            model.build_estimator(each, index)
    candidate.estimators = nn.ModuleList(own).to(model.mean)  # type: ignore[assignment]
    return candidate


def _fit_phi(model: VAE, train: Examples, steps: int, lr: float, batch_size: int, seed: int) -> None:
    """Adam on phi, and running averages on the way."""
    phi = model.phi()
    if not phi and not any(True for estimator in model.estimators for _ in estimator.buffers()):
        return
    model.train()
    generator = torch.Generator().manual_seed(seed)
    noise_generator = torch.Generator().manual_seed(seed + 1)
    optimizer = torch.optim.Adam(phi, lr=lr) if phi else None
    for _, batch in zip(range(steps), train.endless(batch_size, generator), strict=False):
        x = model.check_input(batch.to(model.device))
        loss = step_loss(model, x, model.noise(len(x), generator=noise_generator)).loss
        if optimizer is not None:
            for parameter, gradient in zip(phi, torch.autograd.grad(loss, phi), strict=True):
                parameter.grad = gradient
            optimizer.step()


def _milliseconds(model: VAE, x: Tensor, repetitions: int = 30) -> float:
    """The median time of a draw of the encoder's gradient."""
    encoder = list(model.encoders.parameters())
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        torch.autograd.grad(step_loss(model, x, model.noise(x.shape[0])).loss, encoder)
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[len(times) // 2]
