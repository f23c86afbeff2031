"""The certificate: z-scores of an estimator's mean gradient, and its declared facts measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.lab.certify.chains import Draws, EstimatorChain, StepChain, sample
from dvae.lab.certify.exact import exact_gradient, exact_objective, example, two_layer_example
from dvae.lab.certify.problems import EXTREME_DRAWS, Problem, extreme_problem, random_problems
from dvae.latents import FAMILIES, Latent, Spec
from dvae.models import VAE
from dvae.noise import seeded_generator
from dvae.training.step import step_loss

__all__ = ["Certificate", "ProblemReport", "certify", "certify_model", "num_reports"]


_MAX_Z = 4.0
# States of all layers together that a model's objective is summed over.
_MAX_STATES = 2**16

_PHI_BATCH = 50


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
    phi_steps: int
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
            return f"PASS: unbiased, no bias above {self.excluded_bias:.2g}%; largest |z| {self.max_z:.2f} under {self.threshold:g}"
        declared = " (as it declares)" if not self.declared_unbiased else ""
        return f"FAIL: biased{declared}, largest |z| {self.max_z:.2f}, threshold {self.threshold:g}"

    @property
    def excluded_bias(self) -> float:
        """Relative bias in percent that so many draws would have shown on every problem: what was seen and two standard errors."""
        return 100 * max(report.bias + 2 * report.bias_error for report in self.reports)

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
    phi_steps: int = 200,
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
        phi_steps: steps of Adam on phi before a problem's draws; the longest part of a certificate of a few thousand draws. What
            is unbiased is so for every phi, but the variance is that of a control variate trained for so long.
        seed: of problems and draws.
        threshold: the largest |z| that passes. A sound estimator exceeds 4 once in about 200 certificates of 80 components.
        progress: called with each problem's report.

    Returns:
        A :class:`Certificate`; ``.passed`` says whether the gradient is unbiased.

    Raises:
        InputError: an argument is outside its range.

    Example:
        >>> dvae.certify(dvae.estimators.REINFORCE(), num_problems=2, num_samples=4000).passed
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
        ("phi_steps", phi_steps, 1, 10**6),
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
        latent = example(estimator, family, num_latents)
        problems = [*random_problems(num_problems, latent, seed), extreme_problem(latent, num_samples, seed)]
        for index, problem in enumerate(problems):
            generator = seeded_generator(torch.Generator(), seed, index, number)
            evaluations = max(evaluations, _count_evaluations(estimator, problem, generator))
            takes_black_box = takes_black_box and _takes_black_box(estimator, problem, generator)
            extreme = index == num_problems
            draws = EXTREME_DRAWS * num_samples if extreme else num_samples
            record(_report(estimator, problem, draws, phi_steps, generator))
        layers = two_layer_example(estimator, family)
        if layers is not None:
            record(_two_layer_report(estimator, layers, num_samples, phi_steps, seed))
    max_z = max((report.max_z if math.isfinite(report.max_z) else math.inf) for report in reports)
    declared = estimator.num_evaluations
    return Certificate(
        estimator=f"{type(estimator).__module__}.{type(estimator).__qualname__}",
        passed=max_z < threshold and declared in (None, evaluations) and (estimator.differentiates or takes_black_box),
        max_z=max_z,
        threshold=threshold,
        num_samples=num_samples,
        phi_steps=phi_steps,
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
    names = ", ".join(family.__name__ for family in FAMILIES)
    reason = f"{type(estimator).__name__} supports none of {names}; pass latents=[...]"
    for family in FAMILIES:
        if issubclass(family, estimator.latents):
            try:
                example(estimator, family, num_latents)
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
    return sum(num_problems + 1 + (two_layer_example(estimator, family) is not None) for family in families)


def _report(
    estimator: GradientEstimator, problem: Problem, num_samples: int, phi_steps: int, generator: torch.Generator
) -> ProblemReport:
    exact = exact_gradient(problem, estimator)
    chain = EstimatorChain(_trained(estimator, problem, phi_steps, generator), problem)
    draws = sample(chain, num_samples, generator)
    return _as_report(problem.name, draws, exact.gradient, exact.reinforce_variance, exact.optimal_baseline_variance)


def _two_layer_report(estimator: GradientEstimator, latent: Spec, num_samples: int, phi_steps: int, seed: int) -> ProblemReport:
    """The whole training step of a small model with two stochastic layers, against enumeration of all its states.

    Each layer has an estimate of its own, whose control variate must sample the layers above in the same way at both of its terms.
    """
    generator = seeded_generator(torch.Generator(), seed, 2)
    model = VAE(
        copy.deepcopy(estimator),
        num_pixels=4,
        num_latents=latent.num_variables,
        latent=latent.family,
        num_classes=latent.num_classes,
        num_layers=2,
    )
    model.double().train()
    with torch.no_grad():
        for parameter in model.theta():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(latent.family.example_scale * noise)
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    return _step_report(f"{latent.family.__name__}: two layers", model, x, num_samples, phi_steps, generator)


def certify_model(model: VAE, x: Tensor, *, num_samples: int = 200_000, phi_steps: int = 200, seed: int = 0) -> ProblemReport:
    """Measure the whole training step of a small model against enumeration of all its states.

    Everything between the data and the encoder's gradient takes part: likelihood, prior, objective, networks and estimator. In
    float64, with phi trained on x first.

    Arguments:
        model: one whose states, of all layers together, are few; it is not changed.
        x: one example, [1, num_pixels].
        num_samples: draws, at batch size 1.
        phi_steps: steps of Adam on phi before these.
        seed: of the draws.

    Returns:
        the report; ``max_z`` is the largest |z| over the encoders' parameters, about 4 at most where the gradient is unbiased.

    Raises:
        InputError: there are too many states, x is not one example, or a number is out of its range.

    Example:
        >>> from dvae.lab.certify import certify_model
        >>> model = dvae.VAE(dvae.estimators.LOO(), num_pixels=2, num_latents=2, likelihood=dvae.likelihoods.Poisson())
        >>> certify_model(model, torch.tensor([[3.0, 0.0]]), num_samples=4000).max_z < 4
        True
    """
    model = copy.deepcopy(model).double().train()
    x = model.check_input(x)
    if len(x) != 1:
        raise InputError(f"x must be one example, [1, {model.num_pixels}], got {list(x.shape)}")
    num_states = model.latent(torch.zeros(model.latent.num_logits)).num_states ** model.num_layers
    if num_states > _MAX_STATES:
        raise InputError(f"model must have at most {_MAX_STATES} states to be enumerated, got {num_states:.3g}: fewer latents")
    if phi_steps < 1:
        raise InputError(f"phi_steps must be at least 1, got {phi_steps}")
    generator = seeded_generator(torch.Generator(), seed, 3)
    return _step_report(type(model.likelihood).__name__, model, x, num_samples, phi_steps, generator)


def _step_report(name: str, model: VAE, x: Tensor, num_samples: int, phi_steps: int, generator: torch.Generator) -> ProblemReport:
    batch = x.expand(_PHI_BATCH, -1)
    _minimise(lambda: step_loss(model, batch, model.noise(_PHI_BATCH, generator=generator)).loss, model.phi(), phi_steps)
    encoder = {name: tensor for name, tensor in model.named_parameters() if name.startswith("encoders.")}
    exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(exact_objective(model, x), list(encoder.values()))])
    draws = sample(StepChain(model, x), num_samples, generator)
    return _as_report(name, draws, exact, None, None)


def _as_report(
    name: str, draws: Draws, exact: Tensor, reinforce_variance: float | None, optimal_variance: float | None
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


def _built(estimator: GradientEstimator, problem: Problem) -> GradientEstimator:
    """A copy in float64 that has its parameters and has seen f once outside of any transform."""
    estimator = copy.deepcopy(estimator)
    estimator.ensure_built(math.prod(problem.q.mode().shape[1:]), problem.context.shape[-1])
    return estimator.double().train()


def _trained(estimator: GradientEstimator, problem: Problem, phi_steps: int, generator: torch.Generator) -> GradientEstimator:
    """A copy with phi fitted to the problem, as training would: a control variate can be zero at its start, and hide an error."""
    estimator = _built(estimator, problem)
    q = type(problem.q)(problem.q.logits.expand(_PHI_BATCH, *problem.q.logits.shape[1:]))
    context = problem.context.expand(_PHI_BATCH, -1)

    def loss() -> Tensor:
        noise = q.noise(estimator.num_noise, estimator.num_samples, generator=generator)
        return estimator(problem.objective, q, context, noise=noise).grad.square().sum() / _PHI_BATCH

    _minimise(loss, list(estimator.parameters()), phi_steps)
    return estimator


def _minimise(loss: Callable[[], Tensor], parameters: list[nn.Parameter], steps: int) -> None:
    if not parameters:
        loss()  # once in the open: what a first call checks, it cannot check inside vmap
        return
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(steps):
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
