"""Many independent chains of an estimator, or of a whole training step, at batch size 1."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvae.estimators import GradientEstimator
from dvae.functional import caller
from dvae.lab.certify.problems import Problem
from dvae.models import VAE
from dvae.training.step import step_loss

__all__ = []


_CHAINS = 2000


class Draws(NamedTuple):
    """Mean gradient, its standard error over independent chains, the variance of one draw summed over components, and its time."""

    mean: Tensor
    standard_error: Tensor
    variance: float
    microseconds: float


_Step = Callable[[dict[str, Tensor], Tensor], tuple[Tensor, dict[str, Tensor]]]
"""(buffers, noise) to (gradient, buffers)."""


class _Chain(nn.Module):
    """Something that draws one gradient at batch size 1, with its running statistics passed in and out."""

    def noise(self, generator: torch.Generator, chains: int) -> Any:
        """Noise of one step, stacked over chains."""
        raise NotImplementedError

    def draw(self, noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """One gradient, or what it is the derivative of, and the buffers after it."""
        raise NotImplementedError

    def step(self, buffers: dict[str, Tensor], noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """One estimate and the running state after it, from the state before it and the noise."""
        # What it returns is read inside the call, where the buffers are this chain's own.
        return caller(self, type(self).draw)(buffers, noise)


class EstimatorChain(_Chain):
    """An estimator by itself: the gradient with respect to the logits, [D]."""

    def __init__(self, estimator: GradientEstimator, problem: Problem) -> None:
        super().__init__()
        self.estimator = estimator
        self.problem = problem

    def noise(self, generator: torch.Generator, chains: int) -> Tensor:
        return self.problem.q.noise(chains, self.estimator.num_noise, self.estimator.num_samples, generator=generator)

    def draw(self, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        problem = self.problem
        grad = self.estimator(problem.objective, problem.q, problem.context, noise=noise).grad
        return grad[0], dict(self.named_buffers())


class StepChain(_Chain):
    """The whole training step of a model: the gradient with respect to its encoder's parameters, flattened."""

    def __init__(self, model: VAE, x: Tensor) -> None:
        super().__init__()
        self.model = model
        self.x = x

    def noise(self, generator: torch.Generator, chains: int) -> list[Tensor]:
        draws = [self.model.noise(1, generator=generator) for _ in range(chains)]
        return [torch.stack(layer) for layer in zip(*draws, strict=True)]

    def draw(self, noise: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return step_loss(self.model, self.x, noise).loss, dict(self.named_buffers())

    def step(self, buffers: dict[str, Tensor], noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        def loss(encoder: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return caller(self, type(self).draw)(encoder | buffers, noise)

        encoder = {name: p.detach() for name, p in self.named_parameters() if name.startswith("model.encoders.")}
        gradients, new_buffers = torch.func.grad(loss, has_aux=True)(encoder)
        return -torch.cat([gradient.reshape(-1) for gradient in gradients.values()]), new_buffers


def sample(chain: _Chain, num_samples: int, generator: torch.Generator) -> Draws:
    """The mean of so many estimates along chains of the estimator's running state, with its standard error."""
    run = _vectorized(chain)
    chains = min(_CHAINS, num_samples // 20)
    length = math.ceil(num_samples / chains)
    buffers = {name: tensor.expand(chains, *tensor.shape).clone() for name, tensor in chain.named_buffers()}
    total = squares = torch.zeros((), dtype=torch.float64)
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(length):
            grad, buffers = run(buffers, chain.noise(generator, chains))
            total = total + grad
            squares = squares + grad.square().sum() / chains
    microseconds = 1e6 * (time.perf_counter() - start) / (length * chains)
    chain_means = total / length
    mean = chain_means.mean(0)
    variance = (squares / length - mean.square().sum()).item()
    return Draws(mean, chain_means.std(0) / math.sqrt(chains), variance, microseconds)


def _vectorized(chain: _Chain) -> _Step:
    """All chains at once by vmap, or one by one where the estimator's code cannot be vectorized."""
    run = torch.vmap(chain.step, randomness="different")
    buffers = {name: tensor[None].clone() for name, tensor in chain.named_buffers()}
    try:
        with torch.no_grad():
            run(buffers, chain.noise(torch.Generator(), 1))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"the estimator does not run under torch.vmap, so its chains run one by one: {reason}", stacklevel=5)
        return _one_by_one(chain)
    return run


def _one_by_one(chain: _Chain) -> _Step:
    def run(buffers: dict[str, Tensor], noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        chains = (noise[0] if isinstance(noise, list) else noise).shape[0]
        results = []
        for index in range(chains):
            own_noise = [layer[index] for layer in noise] if isinstance(noise, list) else noise[index]
            results.append(chain.step({name: stacked[index] for name, stacked in buffers.items()}, own_noise))
        grads, states = zip(*results, strict=True)
        return torch.stack(grads), {name: torch.stack([state[name] for state in states]) for name in buffers}

    return run
