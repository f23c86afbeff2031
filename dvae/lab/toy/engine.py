r"""The toy problem of Tucker et al. 2017 and Grathwohl et al. 2018: one Bernoulli variable, many seeds at once.

.. math:: \min_l E_{b \sim \text{Bernoulli}(\sigma(l))}[(b - t)^2]

At t = .499 the two losses, .249001 and .251001, are nearly the same: a gradient with any noise drowns in it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from dvae.config import Module, import_class
from dvae.errors import InputError
from dvae.estimators import CATALOGUE, REBAR, RELAX, GradientEstimator
from dvae.files import written_whole
from dvae.functional import caller
from dvae.latents import Bernoulli
from dvae.networks import MLP

__all__ = ["SoftSurrogate", "ToyRun", "toy", "toy_estimator", "write_csv"]


_EVALUATIONS = 100

_VARIANCE_DRAWS = 1000


class SoftSurrogate(Module):
    """The toy's control variate, Q(sigmoid(z / T)) with a small tanh network Q that starts at zero (Grathwohl et al. 2018).

    Arguments:
        hidden: units of Q.
        temperature: the initial T.
    """

    def __init__(self, hidden: int = 10, temperature: float = 0.5) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.q = MLP(1, 1, [hidden], output_scale=0.0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """[*, B, 1] to [*, B]."""
        return self.q(torch.sigmoid(z / self.log_temperature.exp())).squeeze(-1)


class ToyRun(NamedTuple):
    """What one estimator did at one target.

    iterations: [N], after how many updates the rest was measured.
    loss: [N, seeds], the exact expected loss.
    log_variance: [N, seeds], natural logarithm of the variance of 1,000 fresh gradients.
    u, surrogate: [U] and [U, seeds], the control variate at the end (in units of the loss) along the uniform behind z; None for
        estimators whose control variate is not a function of z.
    """

    estimator: str
    target: float
    iterations: Tensor
    loss: Tensor
    log_variance: Tensor
    u: Tensor
    surrogate: Tensor | None


def toy_estimator(name: str) -> GradientEstimator:
    """The estimator of that name: the toy's own RELAX, one of the library's catalogue, or a class by import path.

    Raises:
        InputError: the name is unknown, or its estimator is not for Bernoulli latents.
    """
    if name == "RELAX":
        estimator: GradientEstimator = RELAX(black_box=True, network=SoftSurrogate(), weight_decay=0.0)
    elif name in CATALOGUE:
        estimator = CATALOGUE[name]()
    elif "." in name:
        estimator = import_class(name, GradientEstimator, "estimators")()
    else:
        raise InputError(f"estimators must be import paths or out of {', '.join(CATALOGUE)}; got {name}")
    estimator.require_support(Bernoulli)
    if estimator.multi_sample:
        raise InputError(f"estimators must be for the mean of f, got {name}, which is for the K-sample bound")
    return estimator


def toy(
    estimator: str,
    target: float = 0.499,
    *,
    num_seeds: int = 10,
    num_iterations: int = 10_000,
    lr: float = 0.01,
    batch_size: int = 1,
    learn_logit: bool = True,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ToyRun:
    """Run the toy with one estimator and independent seeds, all at once through ``torch.vmap``.

    Arguments:
        estimator: see :func:`toy_estimator`.
        target: t, from 0 to 1.
        num_seeds: independent runs, each with its own noise and its own initial phi.
        num_iterations: updates of each.
        lr: learning rate of Adam for the logit and for phi.
        batch_size: draws that an update averages over.
        learn_logit: else the logit stays at 0, p = 1/2, and phi alone is learned: the best control variate there.
        seed: of the first run.
        progress: called with the number of updates done since the last call.

    Raises:
        InputError: an argument is outside its range.
    """
    if not 0 <= target <= 1:
        raise InputError(f"target must be from 0 to 1, got {target}")
    for argument, value in {"num_seeds": num_seeds, "num_iterations": num_iterations, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(f"{argument} must be at least 1, got {value}")

    def f(b: Tensor) -> Tensor:
        return -(b - target).square().sum(-1)

    # Initial weights come from PyTorch's generator; each seed's own, and the caller's left as it was.
    with torch.random.fork_rng(devices=[]):
        runs = [_Run(estimator, f, seed + index) for index in range(num_seeds)]
    template = runs[0]
    parameters, buffers = stack_module_state(runs)
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=lr)
    generators = [torch.Generator().manual_seed(seed + index) for index in range(num_seeds)]
    step = torch.vmap(template.gradients)
    measure = torch.vmap(template.log_variance)
    interval = max(1, num_iterations // _EVALUATIONS)
    iterations, losses, variances = [], [], []
    for iteration in range(num_iterations + 1):
        if iteration % interval == 0:
            p = torch.sigmoid(parameters["logits"].detach()).reshape(-1)
            iterations.append(iteration)
            losses.append(p * (1 - target) ** 2 + (1 - p) * target**2)
            noise = torch.stack([template.noise(_VARIANCE_DRAWS, generator) for generator in generators])
            variances.append(measure(_detached(parameters), buffers, noise))
            if progress is not None:
                progress(min(interval, num_iterations - iteration))
        if iteration == num_iterations:
            break
        noise = torch.stack([template.noise(batch_size, generator) for generator in generators])
        gradients, buffers = step(_detached(parameters), buffers, noise)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name] if learn_logit or name != "logits" else None
        optimizer.step()
    u = torch.linspace(0.005, 0.995, 199)
    surrogate = None
    if isinstance(template.estimator, REBAR):
        surrogate = torch.vmap(template.surrogate, in_dims=(0, 0, None))(_detached(parameters), buffers, u).T
    return ToyRun(estimator, target, torch.tensor(iterations), torch.stack(losses), torch.stack(variances), u, surrogate)


class _Run(nn.Module):
    """One seed's logit and estimator; everything it does is a function of its parameters, so that seeds can be stacked."""

    def __init__(self, estimator: str, f: Callable[[Tensor], Tensor], seed: int) -> None:
        super().__init__()
        self.f = f
        self.logits = nn.Parameter(torch.zeros(1, 1))
        torch.manual_seed(seed)
        self.estimator = toy_estimator(estimator)
        self.estimator.ensure_built(1, 0)
        self.estimator(f, Bernoulli(self.logits.detach()))  # once in the open: what a first call checks, it cannot check in vmap

    def noise(self, batch_size: int, generator: torch.Generator) -> Tensor:
        return torch.rand(self.estimator.num_noise, self.estimator.num_samples, batch_size, 1, generator=generator)

    def _loss(self, noise: Tensor) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """The loss of a step, with the gradients [B, 1] and the buffers after it."""
        q = Bernoulli(self.logits.expand(noise.shape[-2], 1))
        grad = self.estimator(self.f, q, noise=noise).grad
        loss = (grad.square().sum() - (grad.detach() * self.logits).sum()) / len(grad)
        return loss, (grad, dict(self.named_buffers()))

    def gradients(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], noise: Tensor) -> Any:
        def loss(parameters: dict[str, Tensor]) -> Any:
            return caller(self, _Run._loss)(parameters | buffers, noise)

        gradients, (_, new_buffers) = torch.func.grad(loss, has_aux=True)(parameters)
        return gradients, new_buffers

    def log_variance(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], noise: Tensor) -> Tensor:
        _, (grad, _) = caller(self, _Run._loss)(parameters | buffers, noise)
        return grad.double().var().clamp(min=1e-30).log()

    def surrogate(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], u: Tensor) -> Tensor:
        """eta c(z), in units of the loss, along the uniform behind z."""
        return caller(self, _Run._surrogate)(parameters | buffers, u)

    def _surrogate(self, u: Tensor) -> Tensor:
        estimator, q = self.estimator, Bernoulli(self.logits)
        assert isinstance(estimator, REBAR)
        z = q.relaxed(u[:, None, None])

        def f(sample: Tensor, temperature: Tensor | None = None) -> Tensor:
            return self.f(sample)

        return -(estimator.eta * estimator.control_variate(f, q, z, None)).reshape(-1)


def _detached(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in parameters.items()}


def write_csv(runs: Sequence[ToyRun], path: str | Path) -> Path:
    """One line for each measurement: target, estimator, seed, iteration, loss, log_variance."""
    path = Path(path)
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["target", "estimator", "seed", "iteration", "loss", "log_variance"])
        for run in runs:
            for row, iteration in enumerate(run.iterations.tolist()):
                for index in range(run.loss.shape[1]):
                    figures = (f"{value[row, index].item():.9g}" for value in (run.loss, run.log_variance))
                    table.writerow([run.target, run.estimator, index, iteration, *figures])
    return path
