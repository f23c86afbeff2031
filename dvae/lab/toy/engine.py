"""Many seeds of a toy at once."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from dvae.errors import InputError
from dvae.estimators import REBAR, Exact, GradientEstimator, named
from dvae.files import written_whole
from dvae.functional import caller
from dvae.latents import Discrete, Latent

__all__ = ["ToyProblem", "ToyRun", "estimator_for", "run", "write_csv"]


_EVALUATIONS = 100

_VARIANCE_DRAWS = 1000


class ToyProblem(NamedTuple):
    """A minimisation over the logits of one example's latents, which start at 0.

    name: as a figure's title has it.
    target: its number: t, or epsilon.
    family, num_latents: of the latents.
    f: samples [*, D] to minus the loss [*].
    expected_loss: logits [seeds, D] to the exact expected loss [seeds].
    least, most: the range of losses that a figure shows.
    special: makes the estimators that are not the catalogue's, by name.
    """

    name: str
    target: float
    family: type[Latent]
    num_latents: int
    f: Callable[[Tensor], Tensor]
    expected_loss: Callable[[Tensor], Tensor]
    least: float
    most: float
    special: Mapping[str, Callable[[], GradientEstimator]]


class ToyRun(NamedTuple):
    """What one estimator did at one target.

    iterations: [N], after how many updates the rest was measured.
    loss: [N, seeds], the exact expected loss.
    log_variance: [N, seeds], natural logarithm of the variance of 1,000 fresh gradients, summed over components.
    least, most: the range of losses that a figure shows.
    u, surrogate: [U] and [U, seeds], the control variate at the end (in units of the loss) along the uniform behind z; None for
        estimators whose control variate is not a function of one z.
    """

    estimator: str
    problem: str
    target: float
    iterations: Tensor
    loss: Tensor
    log_variance: Tensor
    least: float
    most: float
    u: Tensor
    surrogate: Tensor | None


def estimator_for(
    family: type[Latent], name: str, special: Mapping[str, Callable[[], GradientEstimator]] = MappingProxyType({})
) -> GradientEstimator:
    """The estimator of that name: a special one, or one of :func:`dvae.estimators.named`.

    Raises:
        InputError: the name is unknown, or its estimator is not for these latents.
    """
    estimator = special[name]() if name in special else named(name).make()
    estimator.require_support(family)
    if estimator.multi_sample:
        raise InputError(f"estimators must be for the mean of f, got {name}, which is for the K-sample bound")
    return estimator


def run(
    problem: ToyProblem,
    estimator: str,
    *,
    num_seeds: int,
    num_iterations: int,
    lr: float,
    batch_size: int,
    learn_logit: bool,
    seed: int,
    progress: Callable[[int], None] | None,
) -> ToyRun:
    """Run a toy with one estimator and independent seeds, all at once through ``torch.vmap``; arguments as of :func:`toy`."""
    for argument, value in {"num_seeds": num_seeds, "num_iterations": num_iterations, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(f"{argument} must be at least 1, got {value}")
    # Initial weights come from PyTorch's generator; each seed's own, and the caller's left as it was.
    with torch.random.fork_rng(devices=[]):
        runs = [_Run(estimator, problem, seed + index) for index in range(num_seeds)]
    template = runs[0]
    parameters, buffers = stack_module_state(runs)
    parameters = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=lr)
    generators = [torch.Generator().manual_seed(seed + index) for index in range(num_seeds)]
    step = torch.vmap(template.gradients)
    measure = torch.vmap(template.log_variance)
    # All draws of the exact gradient are one, and each costs all states.
    draws = 2 if isinstance(template.estimator, Exact) else _VARIANCE_DRAWS
    interval = max(1, num_iterations // _EVALUATIONS)
    iterations, losses, variances = [], [], []
    for iteration in range(num_iterations + 1):
        if iteration % interval == 0:
            iterations.append(iteration)
            losses.append(problem.expected_loss(parameters["logits"].detach()[:, 0]))
            noise = torch.stack([template.noise(draws, generator) for generator in generators])
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
    if isinstance(template.estimator, REBAR) and problem.num_latents == 1:
        surrogate = torch.vmap(template.surrogate, in_dims=(0, 0, None))(_detached(parameters), buffers, u).T
    figures = (torch.tensor(iterations), torch.stack(losses), torch.stack(variances))
    return ToyRun(estimator, problem.name, problem.target, *figures, problem.least, problem.most, u, surrogate)


class _Run(nn.Module):
    """One seed's logit and estimator; everything it does is a function of its parameters, so that seeds can be stacked."""

    def __init__(self, estimator: str, problem: ToyProblem, seed: int) -> None:
        super().__init__()
        self.f = problem.f
        self.family = problem.family
        self.logits = nn.Parameter(torch.zeros(1, problem.num_latents))
        torch.manual_seed(seed)
        self.estimator = estimator_for(problem.family, estimator, problem.special)
        self.estimator.ensure_built(problem.num_latents, 0)
        # Once in the open: what a first call checks, it cannot check in vmap.
        self.estimator(self.f, self.family(self.logits.detach()))

    def noise(self, batch_size: int, generator: torch.Generator) -> Tensor:
        return torch.rand(
            self.estimator.num_noise, self.estimator.num_samples, batch_size, self.logits.shape[-1], generator=generator
        )

    def _loss(self, noise: Tensor) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """The loss of a step, with the gradients [B, D] and the buffers after it."""
        q = self.family(self.logits.expand(noise.shape[-2], -1))
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
        return grad.double().var(0).sum().clamp(min=1e-30).log()

    def surrogate(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], u: Tensor) -> Tensor:
        """eta c(z), in units of the loss, along the uniform behind z."""
        return caller(self, _Run._surrogate)(parameters | buffers, u)

    def _surrogate(self, u: Tensor) -> Tensor:
        estimator, q = self.estimator, self.family(self.logits)
        assert isinstance(estimator, REBAR)
        assert isinstance(q, Discrete)
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
