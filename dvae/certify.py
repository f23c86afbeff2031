"""Certificates: an estimator's bias and variance, measured against exact enumeration on random small problems."""

from __future__ import annotations

import copy
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.latents import Bernoulli, Categorical, Discrete, Gaussian, Latent
from dvae.models import DiscreteVAE
from dvae.noise import seeded_generator
from dvae.step import Layer, step_loss

__all__ = ["Certificate", "Problem", "ProblemReport", "certify", "exact_gradient", "random_problems"]

_CHAINS = 2000
_MAX_Z = 4.0
_PHI_STEPS, _PHI_BATCH = 200, 50
_NUM_CLASSES = 3
# Rare values take more draws to be seen often enough for a standard error.
_EXTREME_DRAWS = 4
# Nodes of the quadrature that stands for enumeration where latents are continuous.
_NODES = 100
# States of all K samples together that the bound of K samples is summed over.
_MAX_TUPLES = 2**16


class Problem(NamedTuple):
    """A small problem whose gradient can be enumerated.

    objective: takes samples [*, 1, D] (for categorical latents [*, 1, D, C]) to [*, 1].
    q: the distribution, of one example, in float64.
    context: [1, 3], what control variates may look at.
    """

    name: str
    objective: Callable[[Tensor], Tensor]
    q: Any
    context: Tensor


class ProblemReport(NamedTuple):
    """One problem's result.

    max_z: the largest |z| over components.
    bias, bias_error: length of (mean gradient - exact gradient), and of its standard errors, relative to the exact gradient's.
    variance: summed over components.
    reinforce_variance, optimal_baseline_variance: REINFORCE's, without and with the best constant baseline; None where not
        enumerated.
    microseconds: time of one draw among many.
    """

    problem: str
    max_z: float
    bias: float
    bias_error: float
    variance: float
    reinforce_variance: float | None
    optimal_baseline_variance: float | None
    microseconds: float


class Certificate(NamedTuple):
    """What :func:`certify` found.

    passed: every |z| is under the threshold, no value is undefined, f was evaluated as often as declared, and was not
        differentiated where the estimator declares that it need not be.
    """

    estimator: str
    passed: bool
    max_z: float
    threshold: float
    num_samples: int
    latents: tuple[str, ...]
    declared_unbiased: bool
    declared_evaluations: int | None
    measured_evaluations: int
    declared_differentiates: bool
    takes_black_box: bool
    reports: tuple[ProblemReport, ...]

    @property
    def verdict(self) -> str:
        """One line of plain words."""
        if self.declared_evaluations not in (None, self.measured_evaluations):
            return f"FAIL: evaluates f {self.measured_evaluations} times, declares {self.declared_evaluations}"
        if not (self.declared_differentiates or self.takes_black_box):
            return "FAIL: differentiates f, declares that it does not"
        if self.passed:
            return f"PASS: unbiased, largest |z| {self.max_z:.2f} under {self.threshold:g}"
        declared = " (as it declares)" if not self.declared_unbiased else ""
        return f"FAIL: biased{declared}, largest |z| {self.max_z:.2f}, threshold {self.threshold:g}"

    @property
    def as_declared(self) -> bool:
        """Whether the estimator is what it says: certified, or declared biased and otherwise as declared."""
        return self.passed or (not self.declared_unbiased and "biased" in self.verdict)

    @property
    def variance_ratio(self) -> float | None:
        """Variance over that of REINFORCE, the geometric mean over problems; None where REINFORCE's was not enumerated."""
        logs = [math.log(max(r.variance, 1e-300) / r.reinforce_variance) for r in self.reports if r.reinforce_variance]
        return math.exp(sum(logs) / len(logs)) if logs else None

    @property
    def bias(self) -> tuple[float, float]:
        """Relative bias and its standard error on the problem where it is largest in standard errors."""
        worst = max(self.reports, key=lambda report: report.max_z)
        return worst.bias, worst.bias_error

    @property
    def microseconds(self) -> float:
        """Time of one draw among many, the mean over the problems of one layer."""
        times = [report.microseconds for report in self.reports if report.reinforce_variance is not None] or [
            report.microseconds for report in self.reports
        ]
        return sum(times) / len(times)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {
            "verdict": self.verdict,
            "variance_ratio": self.variance_ratio,
            "microseconds": self.microseconds,
            "reports": [report._asdict() for report in self.reports],
        }


def certify(
    estimator: GradientEstimator | type[GradientEstimator],
    *,
    latents: Sequence[type[Latent]] | None = None,
    num_problems: int = 8,
    num_samples: int = 200_000,
    num_latents: int = 4,
    seed: int = 0,
    threshold: float = _MAX_Z,
    progress: Callable[[ProblemReport], None] | None = None,
) -> Certificate:
    r"""Measure an estimator's bias and variance against enumeration of all states.

    For each problem, thousands of independent chains of the estimator run at batch size 1 in float64, with running statistics
    advancing as in training and with phi trained on the problem first, so that a baseline that has seen the current sample, or a
    control variate that is right only when it is zero, is found. For each family of latents there are random problems, one with
    logits up to 10 in size (or as large as so many draws can resolve), and the whole training step of a model with two stochastic
    layers. The statistic is :math:`z = (\bar g - \nabla) / \text{standard error}` for each component of the logits (or of the
    encoder's parameters), the error taken over chains. Estimators for the K-sample bound are held against the bound's gradient,
    summed over all K-tuples of states; Gaussian latents against Gauss-Hermite quadrature.

    Arguments:
        estimator: an estimator, or its class, made with its defaults. It is copied, not changed.
        latents: families to try; all that the estimator supports where it is None.
        num_problems: random objectives (linear, quadratic, multiplicative, small networks) and logits, for each family.
        num_samples: draws for each problem.
        num_latents: D of Bernoulli problems, at most 12; the other families have fewer, for as many states.
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
    families = tuple(_certified_families(estimator, num_latents) if latents is None else latents)
    for family in families:
        estimator.require_support(family)
    reports: list[ProblemReport] = []
    evaluations, takes_black_box = 0, True

    def record(report: ProblemReport) -> None:
        reports.append(report)
        if progress is not None:
            progress(report)

    for number, family in enumerate(families):
        size = _num_variables(estimator, family, num_latents)
        problems = [
            *random_problems(num_problems, size, seed, latent=family),
            _extreme_problem(size, num_samples, seed, family),
        ]
        for index, problem in enumerate(problems):
            generator = seeded_generator(torch.Generator(), seed, index, number)
            evaluations = max(evaluations, _count_evaluations(estimator, problem, generator))
            takes_black_box = takes_black_box and _takes_black_box(estimator, problem, generator)
            extreme = index == num_problems
            record(_report(estimator, problem, _EXTREME_DRAWS * num_samples if extreme else num_samples, generator))
        if not (estimator.multi_sample and issubclass(family, Gaussian)):
            record(_two_layer_report(estimator, family, num_samples, seed))
    max_z = max((report.max_z if math.isfinite(report.max_z) else math.inf) for report in reports)
    declared = estimator.num_evaluations
    return Certificate(
        estimator=f"{type(estimator).__module__}.{type(estimator).__qualname__}",
        passed=max_z < threshold and declared in (None, evaluations) and (estimator.differentiates or takes_black_box),
        max_z=max_z,
        threshold=threshold,
        num_samples=num_samples,
        latents=tuple(family.__name__ for family in families),
        declared_unbiased=estimator.unbiased,
        declared_evaluations=declared,
        measured_evaluations=evaluations,
        declared_differentiates=estimator.differentiates,
        takes_black_box=takes_black_box,
        reports=tuple(reports),
    )


def _certified_families(estimator: GradientEstimator, num_latents: int) -> list[type[Latent]]:
    """Those that the estimator supports and whose states can be enumerated, K samples together for the K-sample bound."""
    known: list[type[Latent]] = []
    reason = f"{type(estimator).__name__} supports none of Bernoulli, Categorical, Gaussian; pass latents=[...]"
    for family in (Bernoulli, Categorical, Gaussian):
        if issubclass(family, estimator.latents):
            try:
                _num_variables(estimator, family, num_latents)
            except InputError as error:
                reason = str(error)
            else:
                known.append(family)
    if not known:
        raise InputError(reason)
    return known


def num_reports(estimator: GradientEstimator, num_problems: int) -> int:
    """How many problems a certificate has, for a progress bar."""
    families = _certified_families(estimator, 1)
    return len(families) * (num_problems + 2) - (estimator.multi_sample and Gaussian in families)


# Problems ---------------------------------------------------------------------------------------------------------------------


def random_problems(num_problems: int, num_latents: int, seed: int = 0, *, latent: type[Latent] = Bernoulli) -> Iterator[Problem]:
    """Random objectives and logits in float64: four kinds of objective in turn, logits of growing size up to about +-6."""
    for index in range(num_problems):
        scale = 0.5 + 1.5 * index / max(num_problems - 1, 1)
        yield _problem(index, list(_OBJECTIVES)[index % len(_OBJECTIVES)], latent, num_latents, seed, scale)


def _problem(index: int, kind: str, latent: type[Latent], num_latents: int, seed: int, scale: float) -> Problem:
    generator = seeded_generator(torch.Generator(), seed, 1, index)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logits_shape, sample_shape = latent.shapes(num_latents, _NUM_CLASSES if issubclass(latent, Categorical) else None)
    size = math.prod(sample_shape)
    weights, matrix, offset = normal(size), normal(size, size), 3 * normal(1)
    objective = functools.partial(_OBJECTIVES[kind], weights=weights, matrix=matrix, offset=offset)
    logits = scale * normal(1, *logits_shape)
    if issubclass(latent, Gaussian):
        logits = 0.3 * logits  # a standard deviation is the exponential of its logit
    q = latent(logits)
    return Problem(f"{latent.__name__}: {kind} {index}", lambda b: objective(latent.flat(b)), q, normal(1, 3))


def _extreme_problem(num_latents: int, num_samples: int, seed: int, latent: type[Latent]) -> Problem:
    """Logits from -L to L, L = 10, or less where so few draws would not see the rarer value some 200 times."""
    problem = _problem(0, "quadratic", latent, num_latents, seed, 1.0)
    largest = min(10.0, math.log(_EXTREME_DRAWS * num_samples / 200))
    if issubclass(latent, Gaussian):
        largest = 1.0
    logits = torch.linspace(-1, 1, problem.q.logits.numel(), dtype=torch.float64).reshape_as(problem.q.logits)
    if issubclass(latent, Categorical):
        logits = logits.flip(-1) / 2  # within a variable it is the differences that count
    return problem._replace(name=f"{latent.__name__}: extreme logits", q=latent(largest * logits))


def _linear(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return b @ weights + offset


def _quadratic(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return ((b @ matrix) * b).sum(-1) + offset


def _multiplicative(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return (1 + weights * b).prod(-1) + offset


def _network(b: Tensor, *, weights: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return 2 * torch.tanh(b @ matrix - 0.5) @ weights + offset


_OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "multiplicative": _multiplicative,
    "network": _network,
}


# Exact gradients --------------------------------------------------------------------------------------------------------------


class ExactGradient(NamedTuple):
    """By enumeration: d E[f] / d logits, and the total variance of REINFORCE without and with the best constant baseline."""

    gradient: Tensor
    reinforce_variance: float | None
    optimal_baseline_variance: float | None


def exact_gradient(problem: Problem, estimator: GradientEstimator | None = None) -> ExactGradient:
    """The exact gradient of a problem's expectation; of the K-sample bound's where the estimator is for that."""
    q = type(problem.q)(problem.q.logits[0])
    states, probs = _states(q)
    value = problem.objective(states[:, None])[:, 0]
    score = q.score(states).reshape(len(states), -1)
    if estimator is not None and estimator.multi_sample:
        tuples = _tuples(len(states), estimator.num_samples)
        weight = probs[tuples].prod(-1) * estimator.combine(value[tuples].T)
        gradient = sum(weight @ score[column] for column in tuples.T)
        return ExactGradient(torch.as_tensor(gradient).reshape(q.logits.shape), None, None)
    gradient = (probs * value) @ score
    norm = score.square().sum(-1)
    baseline = (probs * value * norm).sum() / (probs * norm).sum()

    def variance(a: Tensor) -> float:
        return ((probs * (value - a).square() * norm).sum() - gradient.square().sum()).item()

    return ExactGradient(gradient.reshape(q.logits.shape), variance(torch.zeros_like(baseline)), variance(baseline))


def _states(q: Any, num_nodes: int = _NODES) -> tuple[Tensor, Tensor]:
    """All states of one example and their probabilities, differentiable in the logits; a quadrature's nodes and weights."""
    if isinstance(q, Discrete):
        states = q.enumerate()
        return states, q.log_prob(states).exp()
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(num_nodes))
    weights = weights / weights.sum()
    grid = _tuples(num_nodes, q.mean.shape[-1])
    return q.mean + q.log_std.exp() * nodes[grid], weights[grid].prod(-1)


def _tuples(base: int, length: int) -> Tensor:
    """All tuples of so many numbers below ``base``, [base^length, length]."""
    return torch.cartesian_prod(*[torch.arange(base)] * length).reshape(-1, length)


def _num_variables(estimator: GradientEstimator, family: type[Latent], num_latents: int) -> int:
    """How many variables a problem has: as many as can be enumerated, for the K-sample bound in all K samples together."""
    if issubclass(family, Gaussian):
        size, base = 2, _NODES
    elif issubclass(family, Categorical):
        size, base = max(1, num_latents // 2), _NUM_CLASSES
    else:
        size, base = num_latents, 2
    if estimator.multi_sample:
        while size > 1 and base ** (size * estimator.num_samples) > _MAX_TUPLES:
            size -= 1
        if base ** (size * estimator.num_samples) > _MAX_TUPLES:
            raise InputError(
                f"num_samples is too large to enumerate the bound of {family.__name__} latents, got {estimator.num_samples}"
            )
    return size


# Reports ----------------------------------------------------------------------------------------------------------------------


def _report(estimator: GradientEstimator, problem: Problem, num_samples: int, generator: torch.Generator) -> ProblemReport:
    exact = exact_gradient(problem, estimator)
    chain = _EstimatorChain(_trained(estimator, problem, generator), problem)
    draws = _sample(chain, num_samples, generator)
    return _as_report(problem.name, draws, exact.gradient, exact.reinforce_variance, exact.optimal_baseline_variance)


def _two_layer_report(estimator: GradientEstimator, family: type[Latent], num_samples: int, seed: int) -> ProblemReport:
    """The whole training step of a small model with two stochastic layers, against enumeration of all its states.

    Each layer has an estimate of its own, whose control variate must sample the layers above in the same way at both of its terms.
    """
    generator = seeded_generator(torch.Generator(), seed, 2)
    single = estimator.multi_sample or issubclass(family, Gaussian)
    model = DiscreteVAE(
        copy.deepcopy(estimator),
        num_pixels=4,
        num_latents=1 if single else 2,
        latent=family,
        num_classes=_NUM_CLASSES if issubclass(family, Categorical) else None,
        num_layers=2,
        seed=0,
    )
    model.double().train()
    scale = 0.2 if issubclass(family, Gaussian) else 1.0  # exponentials of exponentials
    with torch.no_grad():
        for parameter in model.theta():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    _train_model_phi(model, x, generator)
    encoder = {name: tensor for name, tensor in model.named_parameters() if name.startswith("encoders.")}
    exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(_exact_objective(model, x), list(encoder.values()))])
    draws = _sample(_StepChain(model, x), num_samples, generator)
    return _as_report(f"{family.__name__}: two layers", draws, exact, None, None)


def _exact_objective(model: DiscreteVAE, x: Tensor) -> Tensor:
    """The ELBO (or K-sample bound) of x [1, num_pixels] under two layers, by enumeration; differentiable."""
    lower = model.infer(0, x, [])
    states, probs = _states(type(lower)(lower.logits[0]))
    below = states[:, None]
    upper = model.infer(1, x, [below])
    probabilities, log_weights = [], []
    for index in range(len(states)):
        tops, top_probs = _states(type(upper)(upper.logits[index, 0]))
        at = below[index].expand(len(tops), *below.shape[1:])
        q = type(upper)(upper.logits[index].expand(len(tops), *upper.logits.shape[1:]))
        terms = model.terms(x, [Layer(lower, at, at), Layer(q, tops[:, None], tops[:, None])])
        log_weights.append(model.objective(terms)[:, 0])
        probabilities.append(probs[index] * top_probs)
    probability, log_weight = torch.cat(probabilities), torch.cat(log_weights)
    estimator = model.estimators[0]
    if not estimator.multi_sample:
        return (probability * log_weight).sum()
    tuples = _tuples(len(probability), estimator.num_samples)
    return (probability[tuples].prod(-1) * estimator.combine(log_weight[tuples].T)).sum()


class _Draws(NamedTuple):
    """Mean gradient, its standard error over independent chains, the variance of one draw summed over components, and its time."""

    mean: Tensor
    standard_error: Tensor
    variance: float
    microseconds: float


def _as_report(
    name: str, draws: _Draws, exact: Tensor, reinforce_variance: float | None, optimal_variance: float | None
) -> ProblemReport:
    length = exact.norm().clamp(min=1e-300)
    return ProblemReport(
        name,
        _max_z(draws.mean, draws.standard_error, exact),
        ((draws.mean - exact).norm() / length).item(),
        (draws.standard_error.norm() / length).item(),
        draws.variance,
        reinforce_variance,
        optimal_variance,
        draws.microseconds,
    )


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
        return self.problem.q.noise(chains, self.estimator.num_noise, self.estimator.num_samples, generator=generator)

    def forward(self, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        problem = self.problem
        grad = self.estimator(problem.objective, problem.q, problem.context, noise=noise).grad
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


def _sample(chain: _Chain, num_samples: int, generator: torch.Generator) -> _Draws:
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
    return _Draws(mean, chain_means.std(0) / math.sqrt(chains), variance, microseconds)


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


def _built(estimator: GradientEstimator, problem: Problem) -> GradientEstimator:
    """A copy in float64 that has its parameters and has seen f once outside of any transform."""
    estimator = copy.deepcopy(estimator)
    estimator.ensure_built(math.prod(problem.q.mode().shape[1:]), problem.context.shape[-1])
    return estimator.double().train()


def _trained(estimator: GradientEstimator, problem: Problem, generator: torch.Generator) -> GradientEstimator:
    """A copy with phi fitted to the problem, as training would: a control variate can be zero at its start, and hide an error."""
    estimator = _built(estimator, problem)
    q = type(problem.q)(problem.q.logits.expand(_PHI_BATCH, *problem.q.logits.shape[1:]))
    context = problem.context.expand(_PHI_BATCH, -1)

    def loss() -> Tensor:
        noise = q.noise(estimator.num_noise, estimator.num_samples, generator=generator)
        return estimator(problem.objective, q, context, noise=noise).grad.square().sum() / _PHI_BATCH

    parameters = list(estimator.parameters())
    if parameters:
        _minimise(loss, parameters)
    else:
        loss()  # once in the open: what a first call checks, it cannot check inside vmap
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


def _count_evaluations(estimator: GradientEstimator, problem: Problem, generator: torch.Generator) -> int:
    """How many samples f is evaluated at in one estimate."""
    count, event = 0, problem.q.sample_dim + 1

    def counted(b: Tensor) -> Tensor:
        nonlocal count
        count += math.prod(b.shape[:-event])
        return problem.objective(b)

    estimator = _built(estimator, problem)
    noise = problem.q.noise(estimator.num_noise, estimator.num_samples, generator=generator)
    estimator._derivative_checked = True  # that check is made once, and is no part of an estimate
    estimator(counted, problem.q, problem.context, noise=noise)
    return count


def _takes_black_box(estimator: GradientEstimator, problem: Problem, generator: torch.Generator) -> bool:
    """Whether an f that no derivative goes through will do."""

    def opaque(b: Tensor) -> Tensor:
        return torch.from_numpy(problem.objective(torch.from_numpy(b.numpy())).numpy())

    try:
        _built(estimator, problem)(opaque, problem.q, problem.context, generator=generator)
    except (RuntimeError, TypeError, InputError):
        return False
    return True
