"""Certificates: an estimator's bias and variance, measured against exact enumeration on random small problems."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.latents import Bernoulli
from dvae.models import DiscreteVAE
from dvae.step import Layer, seeded_generator, step_loss

__all__ = ["Certificate", "Problem", "certify", "exact_gradient", "random_problems"]

_CHAINS = 2000
_MAX_Z = 4.0
_PHI_STEPS, _PHI_BATCH = 200, 50


class Problem(NamedTuple):
    """A small problem whose gradient can be enumerated: ``objective`` takes samples [*, 1, D] to [*, 1]."""

    name: str
    objective: Callable[[Tensor], Tensor]
    logits: Tensor
    context: Tensor


class ProblemReport(NamedTuple):
    """One problem's result: the largest |z| over components, and variances summed over them (None where not enumerated)."""

    problem: str
    max_z: float
    max_error: float
    variance: float
    reinforce_variance: float | None
    optimal_baseline_variance: float | None


class Certificate(NamedTuple):
    """What :func:`certify` found.

    passed: every |z| is under the threshold, no value is undefined, and f was evaluated as often as declared.
    """

    estimator: str
    passed: bool
    max_z: float
    threshold: float
    num_samples: int
    declared_unbiased: bool
    declared_evaluations: int
    measured_evaluations: int
    reports: tuple[ProblemReport, ...]

    @property
    def verdict(self) -> str:
        """One line of plain words."""
        if self.measured_evaluations != self.declared_evaluations:
            return f"FAIL: evaluates f {self.measured_evaluations} times, declares {self.declared_evaluations}"
        if self.passed:
            return f"PASS: unbiased, largest |z| {self.max_z:.2f} under {self.threshold:g}"
        declared = " (as it declares)" if not self.declared_unbiased else ""
        return f"FAIL: biased{declared}, largest |z| {self.max_z:.2f}, threshold {self.threshold:g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {
            "verdict": self.verdict,
            "reports": [report._asdict() for report in self.reports],
        }


def certify(
    estimator: GradientEstimator | type[GradientEstimator],
    *,
    num_problems: int = 20,
    num_samples: int = 200_000,
    num_latents: int = 4,
    seed: int = 0,
    threshold: float = _MAX_Z,
    progress: Callable[[ProblemReport], None] | None = None,
) -> Certificate:
    r"""Measure an estimator's bias and variance against enumeration of all :math:`2^D` states.

    For each problem, thousands of independent chains of the estimator run at batch size 1 in float64, with running statistics
    advancing as in training and with phi trained on the problem first, so that a baseline that has seen the current sample, or a
    control variate that is right only when it is zero, is found. A last problem is the whole training step of a model with two
    stochastic layers. The statistic is :math:`z = (\bar g - \nabla) / \text{standard error}` for each of the D components, the
    error taken over chains.

    Arguments:
        estimator: an estimator, or its class, made with its defaults. It is copied, not changed.
        num_problems: random objectives (linear, quadratic, multiplicative, small networks) and logits.
        num_samples: draws for each problem.
        num_latents: D, at most 12.
        seed: of problems and draws.
        threshold: the largest |z| that passes. A sound estimator exceeds 4 once in about 200 certificates of 80 components.
        progress: called with each problem's report.

    Returns:
        A :class:`Certificate`; ``.passed`` says whether the gradient is unbiased.

    Raises:
        InputError: an argument is outside its range.

    >>> certify(dvae.estimators.REINFORCE(), num_problems=2, num_samples=4000).passed
    True
    """
    if isinstance(estimator, type):
        estimator = estimator()
    if not isinstance(estimator, GradientEstimator):
        raise InputError(f"estimator must be a GradientEstimator, got {type(estimator).__name__}")
    for name, value, low, high in (
        ("num_problems", num_problems, 1, 10**6),
        ("num_samples", num_samples, 200, 10**9),
        ("num_latents", num_latents, 1, 12),
    ):
        if not low <= value <= high:
            raise InputError(f"{name} must be from {low} to {high}, got {value}")
    reports = []
    evaluations = 0
    for index, problem in enumerate(random_problems(num_problems, num_latents, seed)):
        generator = seeded_generator(torch.Generator(), seed, index)
        evaluations = max(evaluations, _count_evaluations(estimator, problem, generator))
        reports.append(_report(estimator, problem, num_samples, generator))
        if progress is not None:
            progress(reports[-1])
    reports.append(_two_layer_report(estimator, num_samples, seed))
    if progress is not None:
        progress(reports[-1])
    max_z = max((report.max_z if math.isfinite(report.max_z) else math.inf) for report in reports)
    return Certificate(
        estimator=f"{type(estimator).__module__}.{type(estimator).__qualname__}",
        passed=max_z < threshold and evaluations == estimator.num_evaluations,
        max_z=max_z,
        threshold=threshold,
        num_samples=num_samples,
        declared_unbiased=estimator.unbiased,
        declared_evaluations=estimator.num_evaluations,
        measured_evaluations=evaluations,
        reports=tuple(reports),
    )


def random_problems(num_problems: int, num_latents: int, seed: int = 0) -> Iterator[Problem]:
    """Random objectives and logits in float64: four kinds of objective in turn, logits of growing size up to about +-6."""
    for index in range(num_problems):
        generator = seeded_generator(torch.Generator(), seed, 1, index)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        weights, matrix, offset = normal(num_latents), normal(num_latents, num_latents), 3 * normal(1)
        kind = ("linear", "quadratic", "multiplicative", "network")[index % 4]
        objectives: dict[str, Callable[..., Tensor]] = {
            "linear": _linear,
            "quadratic": _quadratic,
            "multiplicative": _multiplicative,
            "network": _network,
        }
        objective = functools.partial(objectives[kind], weights=weights, matrix=matrix, offset=offset)
        scale = 0.5 + 1.5 * index / max(num_problems - 1, 1)
        yield Problem(f"{kind} {index}", objective, scale * normal(1, num_latents), normal(1, 3))


def _linear(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return b @ weights + offset


def _quadratic(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return ((b @ matrix) * b).sum(-1) + offset


def _multiplicative(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return (1 + weights * b).prod(-1) + offset


def _network(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return 2 * torch.tanh(b @ matrix - 0.5) @ weights + offset


def exact_gradient(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """By enumeration: d E[f] / d logits [D], and the total variance of REINFORCE without and with the best constant baseline."""
    q = Bernoulli(problem.logits[0])
    states = q.enumerate()
    value = problem.objective(states[:, None])[:, 0]
    probs, score = q.log_prob(states).exp(), q.score(states)

    def expectation(integrand: Tensor) -> Tensor:
        return (probs.reshape(-1, *[1] * (integrand.dim() - 1)) * integrand).sum(0)

    gradient = expectation(value[:, None] * score)
    norm = score.square().sum(-1)
    baseline = expectation(value * norm) / expectation(norm)

    def variance(a: Tensor) -> Tensor:
        return expectation((value - a).square() * norm) - gradient.square().sum()

    return gradient, variance(torch.zeros_like(baseline)), variance(baseline)


def _report(estimator: GradientEstimator, problem: Problem, num_samples: int, generator: torch.Generator) -> ProblemReport:
    exact, reinforce_variance, optimal_variance = exact_gradient(problem)
    chain = _EstimatorChain(_trained(estimator, problem, generator), problem)
    mean, standard_error, variance = _sample(chain, num_samples, generator)
    return ProblemReport(
        problem.name,
        _max_z(mean, standard_error, exact),
        (mean - exact).abs().max().item(),
        variance.item(),
        reinforce_variance.item(),
        optimal_variance.item(),
    )


def _two_layer_report(estimator: GradientEstimator, num_samples: int, seed: int) -> ProblemReport:
    """The whole training step of a small model with two stochastic layers, against enumeration of all its states.

    Each layer has an estimate of its own, whose control variate must sample the layers above in the same way at both of its terms.
    """
    generator = seeded_generator(torch.Generator(), seed, 2)
    model = DiscreteVAE(copy.deepcopy(estimator), num_pixels=4, num_latents=2, num_layers=2, seed=0).double().train()
    with torch.no_grad():
        for parameter in model.theta():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    _train_model_phi(model, x, generator)
    encoder = {name: tensor for name, tensor in model.named_parameters() if name.startswith("encoders.")}
    exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(_exact_elbo(model, x), list(encoder.values()))])
    mean, standard_error, variance = _sample(_StepChain(model, x), num_samples, generator)
    return ProblemReport(
        "two layers",
        _max_z(mean, standard_error, exact),
        (mean - exact).abs().max().item(),
        variance.item(),
        None,
        None,
    )


def _exact_elbo(model: DiscreteVAE, x: Tensor) -> Tensor:
    """The ELBO of x [1, num_pixels] under two layers, by enumeration; differentiable."""
    lower = model.infer(0, x, [])
    states = lower.enumerate()[:, None]
    upper = model.infer(1, x, [states])
    total = torch.zeros((), dtype=x.dtype)
    for state in Bernoulli(upper.logits[0]).enumerate():
        top = state.expand_as(states)
        layers = [Layer(lower, states, states), Layer(upper, top, top)]
        probability = (lower.log_prob(states) + upper.log_prob(top)).exp()
        total = total + (probability * model.terms(x, layers).elbo).sum()
    return total


def _max_z(mean: Tensor, standard_error: Tensor, exact: Tensor) -> float:
    error = (mean - exact).abs()
    # A component that never varies has no standard error; its only excuse is to be right to rounding.
    rounding = 1e-9 * (1 + exact.abs())
    z = torch.where(standard_error > rounding * 1e-3, error / standard_error, torch.where(error < rounding, 0.0, math.inf))
    return z.max().item() if z.isfinite().all() else math.inf


_Step = Callable[[dict[str, Tensor], Tensor], tuple[Tensor, dict[str, Tensor]]]
"""(buffers, noise) to (gradient, buffers)."""


class _Chain(nn.Module):
    """Something that draws one gradient at batch size 1, with its running statistics passed in and out."""

    def noise(self, generator: torch.Generator, chains: int) -> Any:
        """Noise of one step, stacked over chains."""
        raise NotImplementedError

    def step(self, buffers: dict[str, Tensor], noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        # What forward returns is read inside functional_call, where the buffers are this chain's own.
        return functional_call(self, buffers, (noise,))


class _EstimatorChain(_Chain):
    """An estimator by itself: the gradient with respect to the logits, [D]."""

    def __init__(self, estimator: GradientEstimator, problem: Problem) -> None:
        super().__init__()
        self.estimator = estimator
        self.problem = problem

    def noise(self, generator: torch.Generator, chains: int) -> Tensor:
        return _noise(self.estimator, self.problem, generator, chains)

    def forward(self, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        problem = self.problem
        grad = self.estimator(problem.objective, Bernoulli(problem.logits), problem.context, noise=noise).grad
        return grad[0], dict(self.named_buffers())


class _StepChain(_Chain):
    """The whole training step of a model: the gradient with respect to its encoder's parameters, flattened."""

    def __init__(self, model: DiscreteVAE, x: Tensor) -> None:
        super().__init__()
        self.model = model
        self.x = x

    def noise(self, generator: torch.Generator, chains: int) -> list[Tensor]:
        draws = [self.model.noise(1, generator=generator) for _ in range(chains)]
        return [torch.stack(layer) for layer in zip(*draws, strict=True)]

    def forward(self, noise: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return step_loss(self.model, self.x, noise).loss, dict(self.named_buffers())

    def step(self, buffers: dict[str, Tensor], noise: Any) -> tuple[Tensor, dict[str, Tensor]]:
        def loss(encoder: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return functional_call(self, encoder | buffers, (noise,))

        encoder = {name: p.detach() for name, p in self.named_parameters() if name.startswith("model.encoders.")}
        gradients, new_buffers = torch.func.grad(loss, has_aux=True)(encoder)
        return -torch.cat([gradient.reshape(-1) for gradient in gradients.values()]), new_buffers


def _sample(chain: _Chain, num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Mean gradient [D], its standard error over independent chains [D], and the variance of one draw, summed over D."""
    run = _vectorized(chain)
    chains = min(_CHAINS, num_samples // 20)
    length = math.ceil(num_samples / chains)
    buffers = {name: tensor.expand(chains, *tensor.shape).clone() for name, tensor in chain.named_buffers()}
    total = squares = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(length):
            grad, buffers = run(buffers, chain.noise(generator, chains))
            total = total + grad
            squares = squares + grad.square().sum() / chains
    chain_means = total / length
    mean = chain_means.mean(0)
    return mean, chain_means.std(0) / math.sqrt(chains), squares / length - mean.square().sum()


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


def _trained(estimator: GradientEstimator, problem: Problem, generator: torch.Generator) -> GradientEstimator:
    """A copy with phi fitted to the problem, as training would: a control variate can be zero at its start, and hide an error."""
    estimator = copy.deepcopy(estimator)
    estimator.ensure_built(problem.logits.shape[-1], problem.context.shape[-1])
    estimator.double().train()
    q = Bernoulli(problem.logits.expand(_PHI_BATCH, -1))
    context = problem.context.expand(_PHI_BATCH, -1)

    def loss() -> Tensor:
        shape = (estimator.num_noise, estimator.num_samples, *q.logits.shape)
        noise = torch.rand(shape, generator=generator, dtype=torch.float64)
        return estimator(problem.objective, q, context, noise=noise).grad.square().sum(-1).mean()

    _minimise(loss, list(estimator.parameters()))
    return estimator


def _train_model_phi(model: DiscreteVAE, x: Tensor, generator: torch.Generator) -> None:
    batch = x.expand(_PHI_BATCH, -1)
    _minimise(lambda: step_loss(model, batch, model.noise(_PHI_BATCH, generator=generator)).loss, model.phi())


def _minimise(loss: Callable[[], Tensor], parameters: list[nn.Parameter]) -> None:
    if not parameters:
        return
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(_PHI_STEPS):
        value = loss()
        if not value.requires_grad:
            return
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def _noise(estimator: GradientEstimator, problem: Problem, generator: torch.Generator, *sizes: int) -> Tensor:
    shape = (*sizes, estimator.num_noise, estimator.num_samples, *problem.logits.shape)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _count_evaluations(estimator: GradientEstimator, problem: Problem, generator: torch.Generator) -> int:
    """How many samples f is evaluated at in one estimate."""
    count = 0

    def counted(b: Tensor) -> Tensor:
        nonlocal count
        count += math.prod(b.shape[:-2])
        return problem.objective(b)

    estimator = copy.deepcopy(estimator)
    estimator.ensure_built(problem.logits.shape[-1], problem.context.shape[-1])
    estimator.double()(counted, Bernoulli(problem.logits), problem.context, noise=_noise(estimator, problem, generator))
    return count
