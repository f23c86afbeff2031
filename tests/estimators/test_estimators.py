"""Every estimator: its equation by hand on the same noise, its certificate, and mutants that must fail it."""

import copy
import inspect
import sys
import textwrap

import pytest
import torch
from torch import nn

import dvae
from dvae import InputError
from dvae.estimators import (
    ARM,
    ARMS,
    CATALOGUE,
    LAX,
    LOO,
    NVIL,
    REBAR,
    REINFORCE,
    RELAX,
    RODEO,
    VIMCO,
    Concrete,
    DisARM,
    DoubleCV,
    Draw,
    Exact,
    Facts,
    GradientEstimator,
    GumbelStraightThrough,
    MultiSampleDisARM,
    MuProp,
    ReinMax,
    Reparameterization,
    StraightThrough,
    facts,
)
from dvae.latents import Bernoulli, Categorical, Gaussian

B, D, K, C = 5, 3, 2, 4

MAKERS = {
    name: make
    for name, make in CATALOGUE.items()
    # The default networks are for 200 latents: small ones find the same errors.
    if not name.startswith(("RELAX", "LAX", "RODEO"))
} | {
    "REINFORCE(num_samples=3)": lambda: REINFORCE(num_samples=3),
    "ARMS(size=2)": lambda: ARMS(2),
    "ARMS(size=3, num_samples=2)": lambda: ARMS(3, num_samples=2),
    "MuProp(num_samples=2)": lambda: MuProp(num_samples=2),
    "DoubleCV(num_samples=3)": lambda: DoubleCV(3),
    "RODEO": lambda: RODEO(hidden=10),
    "RODEO(num_samples=3)": lambda: RODEO(3, hidden=10, depth=2),
    "RELAX": lambda: RELAX(hidden=20),
    "RELAX(coupled=False)": lambda: RELAX(hidden=20, coupled=False),
    "RELAX(black_box=True)": lambda: RELAX(hidden=20, black_box=True),
    "RELAX(depth=4, num_samples=2)": lambda: RELAX(hidden=20, depth=4, num_samples=2),
    "MultiSampleDisARM(num_samples=3)": lambda: MultiSampleDisARM(3),
    "VIMCO(num_samples=3)": lambda: VIMCO(3),
    "LAX": lambda: LAX(hidden=20),
}
UNBIASED = {name: make for name, make in MAKERS.items() if make().unbiased}


def quadratic(b: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(1.0, D + 1, dtype=b.dtype)
    return ((b - 0.3) * weights).square().sum(-1) + b[..., 0] * b[..., 1]


@pytest.fixture
def q() -> Bernoulli:
    return Bernoulli(torch.randn(B, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


@pytest.fixture
def context() -> torch.Tensor:
    return torch.randn(B, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def noise_for(estimator: GradientEstimator, q: Bernoulli, seed: int = 3) -> torch.Tensor:
    return q.noise(estimator.num_noise, estimator.num_samples, generator=torch.Generator().manual_seed(seed))


def built(estimator: GradientEstimator, context: torch.Tensor | None) -> GradientEstimator:
    estimator.ensure_built(D, 0 if context is None else context.shape[-1])
    return estimator.double()


# The equation, by hand ------------------------------------------------------------------------------------------------------


def test_reinforce_is_f_times_the_score(q):
    estimator = REINFORCE(num_samples=K)
    noise = noise_for(estimator, q)
    estimate = estimator(quadratic, q, noise=noise)
    b = (q.logits + torch.logit(noise[0]) > 0).double()
    torch.testing.assert_close(estimate.value, quadratic(b).mean(0))
    torch.testing.assert_close(estimate.grad, (quadratic(b)[..., None] * (b - q.probs)).mean(0), atol=1e-10, rtol=0)


def test_moving_average_is_read_before_it_is_updated(q):
    estimator = REINFORCE("moving_average", decay=0.5).double()
    b, values = [], []
    for seed in range(3):
        noise = noise_for(estimator, q, seed)
        grad = estimator(quadratic, q, noise=noise).grad
        b.append((q.logits + torch.logit(noise[0, 0]) > 0).double())
        values.append(quadratic(b[-1]))
    # after two updates with decay 1/2 the corrected average is (m_1 + 2 m_2) / 3; the third value is not in it
    average = (values[0].mean() + 2 * values[1].mean()) / 3
    torch.testing.assert_close(grad, (values[2] - average)[:, None] * (b[2] - q.probs), atol=1e-10, rtol=0)


def test_moving_average_stands_still_in_evaluation_mode(q):
    estimator = REINFORCE("moving_average").double().eval()
    before = copy.deepcopy(estimator.state_dict())
    estimator(quadratic, q)
    assert all(torch.equal(before[name], tensor) for name, tensor in estimator.state_dict().items())


def test_loo_subtracts_the_mean_of_the_other_samples(q):
    estimator = LOO(3)
    noise = noise_for(estimator, q)
    b = (q.logits + torch.logit(noise[0]) > 0).double()
    f = quadratic(b)
    expected = sum((f[k] - (f.sum(0) - f[k]) / 2)[:, None] * (b[k] - q.probs) for k in range(3)) / 3
    torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, expected, atol=1e-10, rtol=0)


def test_nvil_subtracts_its_network_and_normalizes_when_asked(q, context):
    estimator = built(NVIL(variance_normalization=True, decay=0.5), context)
    with torch.no_grad():
        estimator.network.layers[-1].weight.fill_(0.1)
    first = noise_for(estimator, q, 0)
    estimator(quadratic, q, context, noise=first)
    f0 = quadratic((q.logits + torch.logit(first[0, 0]) > 0).double())
    noise = noise_for(estimator, q, 1)
    b = (q.logits + torch.logit(noise[0, 0]) > 0).double()
    scale = (f0.square().mean() - f0.mean().square()).clamp(min=1).sqrt()
    signal = (quadratic(b) - f0.mean() - estimator.network(context).squeeze(-1)) / scale
    grad = estimator(quadratic, q, context, noise=noise).grad
    torch.testing.assert_close(grad, signal[:, None] * (b - q.probs), atol=1e-10, rtol=0)


def test_concrete_is_the_derivative_at_the_relaxed_sample(q):
    estimator = Concrete(0.5)
    noise = noise_for(estimator, q)
    logits = q.logits.clone().requires_grad_()
    quadratic(torch.sigmoid((logits + torch.logit(noise[0, 0])) / 0.5)).sum().backward()
    torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, logits.grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("make", [REBAR, lambda **k: RELAX(hidden=7, **k), lambda **k: RELAX(hidden=7, black_box=True, **k)])
def test_rebar_and_relax_equal_autograd_through_both_paths(q, context, make, coupled):
    """The paper's estimator, by autograd through z and through z~ each; coupled, z~ comes from z's own uniform."""
    estimator = built(make(coupled=coupled), context)
    with torch.no_grad():
        estimator.eta.fill_(0.8)
    noise = noise_for(estimator, q)
    logits = q.logits.clone().requires_grad_()
    p = torch.sigmoid(logits)
    u = noise[0, 0]
    z = logits + torch.logit(u)
    b = (z > 0).double()
    v = torch.where(b > 0, (u - (1 - p)) / p, u / (1 - p)).detach() if coupled else noise[1, 0]
    z_tilde = logits + torch.logit(torch.where(b > 0, v * p + (1 - p), v * (1 - p)))

    def c(z):
        surrogate = 0 if isinstance(estimator, REBAR) and not isinstance(estimator, RELAX) else estimator.network(z, context)
        if getattr(estimator, "black_box", False):
            return surrogate
        return quadratic(torch.sigmoid(z / estimator.log_temperature.exp())) + surrogate

    (path,) = torch.autograd.grad(c(z).sum() - c(z_tilde).sum(), logits, retain_graph=True)
    expected = (quadratic(b) - 0.8 * c(z_tilde))[:, None] * (b - p) + 0.8 * path
    torch.testing.assert_close(estimator(quadratic, q, context, noise=noise).grad, expected, atol=1e-10, rtol=0)


@pytest.fixture
def categorical() -> Categorical:
    return Categorical(torch.randn(B, D, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("make", [REBAR, lambda **k: RELAX(hidden=7, **k), lambda **k: RELAX(hidden=7, black_box=True, **k)])
def test_categorical_rebar_and_relax_equal_autograd_through_both_paths(categorical, context, make, coupled):
    """As above, with z~ from the formulas of Tucker et al.; coupled, from the v that give z~ = z."""
    q, estimator = categorical, make(coupled=coupled)
    estimator.ensure_built(D * C, context.shape[-1])
    estimator.double()
    noise = noise_for(estimator, q)
    logits = q.logits.clone().requires_grad_()
    log_p = torch.log_softmax(logits, -1)
    z = log_p - torch.log(-torch.log(noise[0, 0]))
    top = z.argmax(-1, keepdim=True)
    b = torch.zeros_like(z).scatter(-1, top, 1.0)
    if coupled:  # v_k = exp(-e^-z_k), v_i = exp(-p_i (e^-z_i - e^-z_k))
        gap = torch.exp(-z) - torch.exp(-z.gather(-1, top))
        v = torch.where(b > 0, torch.exp(-torch.exp(-z)), torch.exp(-log_p.exp() * gap)).detach()
    else:
        v = noise[1, 0]
    largest = torch.log(v).gather(-1, top)
    below = -torch.log(-torch.log(v) / log_p.exp() - largest)
    z_tilde = torch.where(b > 0, -torch.log(-largest), below)

    def f(b):
        return ((b - 0.3) * torch.arange(D * C).reshape(D, C)).square().sum((-2, -1)) + b[..., 0, 0] * b[..., 1, 1]

    def c(z):
        surrogate = estimator.network(z.flatten(-2), context) if isinstance(estimator, RELAX) else 0
        if getattr(estimator, "black_box", False):
            return surrogate
        return f(torch.softmax(z / estimator.log_temperature.exp(), -1)) + surrogate

    (path,) = torch.autograd.grad(c(z).sum() - c(z_tilde).sum(), logits, retain_graph=True)
    expected = (f(b) - c(z_tilde))[:, None, None] * (b - log_p.exp()) + path
    torch.testing.assert_close(estimator(f, q, context, noise=noise).grad, expected, atol=1e-10, rtol=1e-10)


def test_arm_disarm_and_arms_of_two(q):
    """The pair from opposite uniforms; ARMS for n = 2 takes the same pair and is DisARM."""
    u = noise_for(ARM(), q)
    p = q.probs
    first, second = (u[0, 0] > 1 - p).double(), (1 - u[0, 0] > 1 - p).double()
    difference = (quadratic(first) - quadratic(second))[:, None]
    arm = ARM()(quadratic, q, noise=u).grad
    torch.testing.assert_close(arm, difference * (u[0, 0] - 0.5), atol=1e-10, rtol=0)
    expected = 0.5 * difference * (-1) ** second * (first != second) * torch.maximum(p, 1 - p)
    torch.testing.assert_close(DisARM()(quadratic, q, noise=u).grad, expected, atol=1e-10, rtol=0)
    pair = ARMS(2)(quadratic, q, noise=torch.cat([u, torch.rand_like(u)])).grad
    torch.testing.assert_close(pair, expected, atol=1e-10, rtol=0)


def test_arms_uniforms_are_uniform_and_correlated_as_it_says(q):
    estimator = ARMS(4)
    noise = q.noise(4, 100_000, generator=torch.Generator().manual_seed(0))
    u = torch.cat([noise[:1], estimator.copula(q, noise)])
    for moment, expected in ((u, 1 / 2), (u.square(), 1 / 3)):
        z = (moment.mean(1) - expected) / (moment.std(1) / 100_000**0.5)
        assert z.abs().max() < 4.5
    b = q.hard(q.relaxed(u))
    p = q.probs
    product = (b[0] - p) * (b[2] - p) / (p * (1 - p))
    z = (product.mean(0) - estimator.correlation(q)) / (product.std(0) / 100_000**0.5)
    assert z.abs().max() < 4
    assert estimator.correlation(q).max() < -0.1


def test_muprop_is_the_taylor_expansion_at_the_mean(q):
    estimator = MuProp()
    noise = noise_for(estimator, q)
    b = (q.logits + torch.logit(noise[0, 0]) > 0).double()
    p = q.probs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(quadratic(p).sum(), p)
    p = p.detach()
    residual = quadratic(b) - quadratic(p) - (slope * (b - p)).sum(-1)
    expected = residual[:, None] * (b - p) + slope * p * (1 - p)
    torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, expected, atol=1e-10, rtol=0)


def slope_of(b: torch.Tensor) -> torch.Tensor:
    b = b.clone().requires_grad_()
    return torch.autograd.grad(quadratic(b).sum(), b)[0]


def test_double_control_variates_take_the_slope_from_the_other_samples(q):
    estimator = DoubleCV(3, alpha=0.5).double()
    noise = noise_for(estimator, q)
    b, p = (q.logits + torch.logit(noise[0]) > 0).double(), q.probs
    slopes = [0.5 * sum(slope_of(b[j]) for j in range(3) if j != k) / 2 for k in range(3)]
    values = [quadratic(b[k]) - (slopes[k] * (b[k] - p)).sum(-1) for k in range(3)]
    expected = 0
    for k in range(3):
        baseline = sum(values[j] for j in range(3) if j != k) / 2
        expected = expected + ((values[k] - baseline)[:, None] * (b[k] - p) + slopes[k] * p * (1 - p)) / 3
    torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("depth", [1, 2])
def test_rodeo_equals_its_stein_operators_over_all_neighbours(q, depth):
    """The equation with every neighbour built, which the estimator avoids."""
    estimator = RODEO(3, hidden=6, depth=depth).double()
    with torch.no_grad():
        estimator.alpha.fill_(0.4)
        estimator.beta.fill_(-0.3)
    noise = noise_for(estimator, q)
    b, p = (q.logits + torch.logit(noise[0]) > 0).double(), q.probs

    def h(k, x):  # [2, B]: h_k and h~_k
        others = [j for j in range(3) if j != k]
        inputs = [torch.stack([(slope_of(b[j]) * (x - b[j])).sum(-1), quadratic(b[j])], -1) for j in others]
        return sum(estimator.network(each) for each in inputs).T / 2

    def stein(function, x):
        total = 0
        for i in range(D):
            for value in (0.0, 1.0):
                neighbour = x.clone()
                neighbour[:, i] = value
                probability = p[:, i] if value else 1 - p[:, i]
                total = total + probability[:, None] * (function(neighbour) - function(x))
        return total / D

    values = [quadratic(b[k]) + 0.4 * stein(lambda x, k=k: h(k, x)[0][:, None], b[k])[:, 0] for k in range(3)]
    expected = 0
    for k in range(3):
        baseline = sum(values[j] for j in range(3) if j != k) / 2
        correction = stein(lambda x, k=k: h(k, x)[1][:, None] * (x - p), b[k])
        expected = expected + ((quadratic(b[k]) - baseline)[:, None] * (b[k] - p) - 0.3 * correction) / 3
    torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("depth", [1, 2])
def test_rodeo_compiled_goes_through_its_network_as_eager(depth):
    """Compiled, its last layer is written as sums."""
    torch.manual_seed(0)
    estimator = RODEO(3, hidden=6, depth=depth).double()
    features = torch.randn(2, 2, 3, B, dtype=torch.float64)
    change = torch.randn(2, 3, B, D, 2, dtype=torch.float64)
    expected = estimator.h(*features, change)
    for given, wanted in zip(torch.compile(estimator.h, fullgraph=True)(*features, change), expected, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_vimco_leaves_each_sample_out_of_the_bound(q, mean):
    estimator = VIMCO(3, mean)
    noise = noise_for(estimator, q)
    b = (q.logits + torch.logit(noise[0]) > 0).double()
    f = quadratic(b)
    bound = torch.logsumexp(f, 0) - torch.log(torch.tensor(3.0, dtype=f.dtype))
    expected = 0
    for k in range(3):
        others = [f[j] for j in range(3) if j != k]
        middle = sum(others) / 2 if mean == "geometric" else torch.log(sum(other.exp() for other in others) / 2)
        without = torch.log((sum(other.exp() for other in others) + middle.exp()) / 3)
        expected = expected + (bound - without)[:, None] * (b[k] - q.probs)
    estimate = estimator(quadratic, q, noise=noise)
    torch.testing.assert_close(estimate.value, bound)
    torch.testing.assert_close(estimate.grad, expected, atol=1e-8, rtol=1e-8)


def test_multi_sample_disarm_replaces_one_sample_by_its_partner(q):
    estimator = MultiSampleDisARM(2)
    noise = noise_for(estimator, q)
    p = q.probs
    b, partner = (noise[0] > 1 - p).double(), (1 - noise[0] > 1 - p).double()
    f, g = quadratic(b), quadratic(partner)

    def bound(first, second):
        return torch.logaddexp(first, second)

    expected = 0
    for k in range(2):
        other = 1 - k
        difference = 0.5 * sum(bound(f[k], m[other]) - bound(g[k], m[other]) for m in (f, g))
        expected = expected + 0.5 * difference[:, None] * (b[k] - partner[k]) * torch.maximum(p, 1 - p)
    torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, expected, atol=1e-9, rtol=1e-9)


def test_straight_through_estimators_differentiate_at_the_hard_sample(q):
    noise = noise_for(StraightThrough(), q)
    z, p = q.logits + torch.logit(noise[0, 0]), q.probs
    b = (z > 0).double()
    slope, soft, middle = slope_of(b), torch.sigmoid(z / 0.5), (b + p) / 2
    for estimator, expected in (
        (StraightThrough(), slope * p * (1 - p)),
        (GumbelStraightThrough(0.5), slope * soft * (1 - soft) / 0.5),
        (ReinMax(), 2 * slope * middle * (1 - middle) - 0.5 * slope * p * (1 - p)),
    ):
        torch.testing.assert_close(estimator(quadratic, q, noise=noise).grad, expected, atol=1e-10, rtol=0)


def gaussian() -> Gaussian:
    return Gaussian(0.5 * torch.randn(B, D, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def test_reparameterization_and_lax_equal_autograd_along_the_path(context):
    q, lax = gaussian(), LAX(hidden=7)
    lax.ensure_built(D, C)
    lax.double()
    noise = noise_for(lax, q)
    logits = q.logits.clone().requires_grad_()
    b = logits[..., 0] + logits[..., 1].exp() * torch.special.ndtri(noise[0, 0])
    expected = torch.autograd.grad(quadratic(b).sum(), logits, retain_graph=True)[0]
    torch.testing.assert_close(Reparameterization()(quadratic, q, noise=noise).grad, expected, atol=1e-10, rtol=1e-10)

    control = lax.network(b, context)
    normal = torch.distributions.Normal(logits[..., 0], logits[..., 1].exp())
    score = torch.autograd.grad(normal.log_prob(b.detach()).sum(), logits, retain_graph=True)[0]
    path = torch.autograd.grad(control.sum(), logits)[0]
    expected = (quadratic(b) - control).detach()[:, None, None] * score + path
    torch.testing.assert_close(lax(quadratic, q, context, noise=noise).grad, expected, atol=1e-10, rtol=1e-10)


def test_exact_is_the_derivative_of_the_enumerated_expectation(q, categorical):
    for distribution in (q, categorical):
        logits = distribution.logits.clone().requires_grad_()
        tilted = type(distribution)(logits)
        states = distribution.enumerate()[:, None]

        def f(b, flat=tilted.flat):
            return (flat(b) - 0.3).square() @ torch.arange(flat(b).shape[-1], dtype=b.dtype)

        expectation = (tilted.log_prob(states).exp() * f(states)).sum()
        expected = torch.autograd.grad(expectation, logits)[0]
        torch.testing.assert_close(Exact()(f, distribution).grad, expected, atol=1e-10, rtol=1e-10)


# The certificate ------------------------------------------------------------------------------------------------------------


# A control variate is not zero any more after so many steps on phi, and what it is does not matter.
QUICK = {"num_problems": 4, "num_samples": 10_000, "phi_steps": 40}

# Variants that take long; what they share with the plain ones is certified in every run.
LONG = (
    "REBAR(coupled=False)",
    "RELAX(coupled=False)",
    "RELAX(black_box=True)",
    "RELAX(depth=4, num_samples=2)",
    "RODEO(num_samples=3)",
    "DoubleCV(num_samples=3)",
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in UNBIASED])
def test_estimator_is_unbiased_and_costs_what_it_declares(name):
    certificate = dvae.certify(UNBIASED[name](), **QUICK)
    assert certificate.passed, certificate.verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", UNBIASED)
def test_estimator_is_unbiased_at_200_000_samples(name):
    certificate = dvae.certify(UNBIASED[name](), num_samples=200_000)
    assert certificate.passed, certificate.verdict


def test_every_exported_estimator_is_in_the_catalogue_and_in_these_tests():
    exported = [getattr(dvae.estimators, name) for name in dvae.estimators.__all__]
    exported = {cls for cls in exported if isinstance(cls, type) and issubclass(cls, GradientEstimator)} - {GradientEstimator}
    assert {type(make()) for make in CATALOGUE.values()} == exported
    assert {type(make()) for make in MAKERS.values()} == exported


BIASED = {name: make for name, make in MAKERS.items() if name not in UNBIASED}


@pytest.mark.parametrize("name", [*BIASED, "NVIL with normalization"])
def test_certificate_fails_what_is_biased_by_design(name):
    make = BIASED.get(name, lambda: NVIL(variance_normalization=True))
    certificate = dvae.certify(make(), **QUICK)
    assert not certificate.passed
    assert certificate.as_declared
    assert certificate.max_z > 8


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_reinmax_is_exact_for_quadratic_f_and_straight_through_for_linear_f(kind, q):
    """What their papers promise of them, by enumeration: the mean over all states of the sampled gradient."""
    weights = torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def f(b):
        return b @ weights[0] if kind == "linear" else ((b @ weights) * b).sum(-1)

    b = q.enumerate()[:, None, None].expand(-1, 1, B, D)
    single = Bernoulli(q.logits)

    def mean(estimator):
        gradients = [estimator.gradient(f, single, Draw(state, state, state, f(state)), None) for state in b]
        return sum(single.log_prob(state).exp()[..., None] * g for state, g in zip(b, gradients, strict=True))[0]

    exact = mean(REINFORCE())
    torch.testing.assert_close(mean(ReinMax()), exact)
    if kind == "linear":
        torch.testing.assert_close(mean(StraightThrough()), exact)
    else:
        assert (mean(StraightThrough()) - exact).abs().max() > 0.01


def mutant(cls: type, old: str, new: str) -> type:
    """The class with one piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(cls))
    assert old in source, f"{cls.__name__} has no {old!r} any more"
    namespace = dict(vars(sys.modules[cls.__module__]))
    exec(compile(source.replace(old, new), f"<mutant of {cls.__name__}>", "exec"), namespace)
    return namespace[cls.__name__]


RELAXED = {"hidden": 10}
STEIN = {"hidden": 10}

# (estimator, what is replaced, by what, constructor arguments): signs flipped, terms dropped, paths detached, factors forgotten.
MUTATIONS = [
    (Exact, "q.log_prob(b).exp() * f(b)", "f(b)", {}),
    (Exact, ".sum(0)", ".mean(0)", {}),
    (REINFORCE, "q.score(draw.b, signal)", "-q.score(draw.b, signal)", {}),
    (REINFORCE, "        signal =", "        self.update(draw)\n        signal =", {"baseline": "moving_average"}),
    (NVIL, "q.score(draw.b, signal)", "-q.score(draw.b, signal)", {}),
    (NVIL, "        signal = draw.value", "        self.update(draw)\n        signal = draw.value", {}),
    (LOO, "q.score(draw.b, signal)", "-q.score(draw.b, signal)", {}),
    (LOO, " * (self.num_samples / (self.num_samples - 1))", "", {}),
    (ARM, "draw.value - f(", "draw.value + f(", {}),
    (ARM, "draw.value - f(q.antithetic(draw.z))", "draw.value", {}),
    (ARM, "draw.noise[0] - 0.5", "0.5 - draw.noise[0]", {}),
    (DisARM, "0.5 * difference", "difference", {}),
    (DisARM, "(b - partner)", "b", {}),
    (DisARM, "draw.value - f(partner)", "draw.value", {}),
    (DisARM, " * torch.sigmoid(q.logits.abs())", "", {}),
    (ARMS, "(value - value.mean(0))", "value", {}),
    (ARMS, "/ (self.size - 1)\n", "/ self.size\n", {}),
    (ARMS, " / (1 - self.correlation(q))", "", {}),
    (ARMS, "(1 - self.correlation(q))", "(1 + self.correlation(q))", {}),
    (ARMS, "flipped = q.logits > 0", "flipped = q.logits < 0", {}),
    (MuProp, "value + q.flat(", "value - q.flat(", {}),
    (MuProp, "q.mean_gradient(derivative)", "-q.mean_gradient(derivative)", {}),
    (MuProp, "q.mean_gradient(derivative)", "torch.zeros_like(derivative)", {}),
    (DoubleCV, "draw.value - q.flat(", "draw.value + q.flat(", {}),
    (DoubleCV, "q.mean_gradient(slope)", "-q.mean_gradient(slope)", {}),
    (DoubleCV, "q.mean_gradient(slope)", "torch.zeros_like(slope)", {}),
    (DoubleCV, "_mean_of_others(value)", "value.mean(0)", {}),
    (DoubleCV, "_mean_of_others(derivative)", "derivative", {}),
    (RODEO, "value.sum(0) - value", "value.sum(0)", STEIN),
    (RODEO, "moved - here[..., None, None]", "moved", STEIN),
    (RODEO, "q.score(draw.b, tilde)", "q.score(draw.b, -tilde)", STEIN),
    (RODEO, "q.score(draw.b, tilde) + q.moved", "q.moved", STEIN),
    (RODEO, "tilde) + q.moved", "tilde) - q.moved", STEIN),
    (RODEO, "own, other = draw.b[None], _others(draw.b)", "own, other = draw.b[None], draw.b[None]", STEIN),
    (REBAR, "draw.value, self.eta * value", "draw.value, 0 * value", {}),
    (REBAR, "draw.value, self.eta * value", "draw.value, -self.eta * value", {}),
    (REBAR, "self.eta * path)", "-self.eta * path)", {}),
    (REBAR, "self.eta * path)", "0 * path)", {}),
    (REBAR, "q.path(draw.z, derivative)", "derivative", {}),
    (REBAR, " - back(conditional_derivative)", "", {"coupled": False}),
    (REBAR, "back_z(derivative) - ", "-", {"coupled": False}),
    (REBAR, "conditional(draw.b, draw.noise[1])", "conditional(draw.b, draw.noise[0])", {"coupled": False}),
    (RELAX, "surrogate = self.network(q.flat(z), context)", "surrogate = self.network(q.flat(z), context).detach()", RELAXED),
    (RELAX, "+ surrogate", "+ surrogate.detach()", RELAXED),
    (RELAX, "self.network(q.flat(z), context)", "self.network(q.flat(q.hard(z)), context)", RELAXED | {"black_box": True}),
    (VIMCO, "self.num_samples * q.score", "q.score", {"num_samples": 2}),
    (VIMCO, "signal = torch.logsumexp(draw.value, 0) - ", "signal = -", {"num_samples": 2}),
    (VIMCO, "torch.logaddexp(others, replacement)", "torch.logaddexp(others, draw.value)", {"num_samples": 2}),
    (VIMCO, "(draw.value.sum(0) - draw.value) /", "draw.value.sum(0) /", {"num_samples": 2}),
    (VIMCO, "others - math.log", "draw.value - math.log", {"num_samples": 2, "mean": "arithmetic"}),
    (MultiSampleDisARM, "self.num_samples * self", "self", {"num_samples": 2}),
    (MultiSampleDisARM, "difference + 0.5 *", "difference +", {"num_samples": 2}),
    (MultiSampleDisARM, "others) - torch.logaddexp", "others) + torch.logaddexp", {"num_samples": 2}),
    (Reparameterization, "temperature=1.0", "temperature=None", {}),
    (Reparameterization, "return q", "return -q", {}),
    (LAX, "q.sample_gradient(draw.b, derivative)", "-q.sample_gradient(draw.b, derivative)", RELAXED),
    (LAX, "q.sample_gradient(draw.b, derivative)", "0 * q.score(draw.b)", RELAXED),
    (LAX, "draw.value, control", "draw.value, -control", RELAXED),
]


class Found(Exception):
    """A problem of a certificate that shows the bias: the others need not be waited for."""


def stop_at_bias(report):
    if report.max_z > 6:
        raise Found


@pytest.mark.parametrize(("cls", "old", "new", "arguments"), MUTATIONS, ids=lambda value: getattr(value, "__name__", None))
def test_certificate_fails_every_mutant(cls, old, new, arguments):
    # It is cheap, and one of its mutants is wrong in two layers only.
    options = {**QUICK, "num_samples": 100_000} if cls is Reparameterization else QUICK
    with pytest.raises(Found):
        dvae.certify(mutant(cls, old, new)(**arguments), latents=cls.latents[:1], progress=stop_at_bias, **options)


@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        (Bernoulli, "return v * torch.exp(F", "return -v * torch.exp(F"),
        (Bernoulli, "logits = sign * self.logits", "logits = self.logits"),
        (Categorical, "return h - self.probs * h.sum(-1, keepdim=True)", "return h"),
        (Categorical, "h - self.probs * h", "h + self.probs * h"),
        (Categorical, "h = v * torch.exp(z - z.amax(-1, keepdim=True))", "h = v"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_certificate_fails_latents_with_a_wrong_path(cls, old, new):
    wrong = type(f"Wrong{cls.__name__}", (cls,), {"path": mutant(cls, old, new).path})
    with pytest.raises(Found):
        dvae.certify(REBAR(), latents=[wrong], progress=stop_at_bias, **QUICK)


def test_fixture_passes_sound_estimators_and_fails_others_with_the_verdict(certified):
    assert certified(REINFORCE, num_problems=1).passed
    with pytest.raises(pytest.fail.Exception, match=r"Concrete: FAIL: biased \(as it declares\), .* \(in the problem 'Bernoulli"):
        certified(Concrete(), num_problems=2)


def test_certificate_fails_wrong_declarations():
    class Cheap(DisARM):
        evaluations_per_sample = 1

    class Blind(MuProp):
        differentiates = False

    assert "evaluates f 2 times, declares 1" in dvae.certify(Cheap(), num_problems=1, num_samples=1000).verdict
    assert "differentiates f, declares that it does not" in dvae.certify(Blind(), num_problems=1, num_samples=1000).verdict


# The contract ---------------------------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """An objective that owns a trainable parameter (theta)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, b):
        return self.weight * quadratic(b)


@pytest.mark.parametrize("name", MAKERS)
def test_value_reaches_theta_alone_and_gradient_reaches_phi_alone(name, q, context):
    estimator, f = built(MAKERS[name](), context), Quadratic()
    q = q if Bernoulli in estimator.latents else gaussian()
    logits = q.logits.clone().requires_grad_()
    estimate = estimator(f, type(q)(logits), context)
    assert estimate.value.shape == (B,)
    assert estimate.grad.shape == logits.shape
    phi = list(estimator.parameters())
    from_value = torch.autograd.grad(estimate.value.sum(), [f.weight, logits, *phi], allow_unused=True)
    assert from_value[0] is not None
    assert all(gradient is None for gradient in from_value[1:])
    if phi:
        from_grad = torch.autograd.grad(estimate.grad.square().sum(), [f.weight, logits, *phi], allow_unused=True)
        assert from_grad[0] is None
        assert from_grad[1] is None
        assert all(gradient is not None for gradient in from_grad[2:])


def test_phi_is_trained_on_the_gradient_of_its_variance(q, context):
    """The gradient of mean |g|^2 for phi, by finite differences on the same noise."""
    estimator = built(RELAX(hidden=6), context)
    noise = noise_for(estimator, q)

    def second_moment() -> torch.Tensor:
        return estimator(quadratic, q, context, noise=noise).grad.square().sum()

    second_moment().backward()
    for parameter in (estimator.log_temperature, estimator.eta, estimator.network.bias):
        with torch.no_grad():
            step = torch.zeros_like(parameter).reshape(-1)
            step[0] = 1e-6
            step = step.reshape(parameter.shape)
            parameter += step
            up = second_moment()
            parameter -= 2 * step
            difference = (up - second_moment()) / 2e-6
            parameter += step
        torch.testing.assert_close(parameter.grad.reshape(-1)[0], difference, rtol=1e-5, atol=1e-5)


def integer_reward(b: torch.Tensor) -> torch.Tensor:
    """Counts runs of ones, in NumPy: no derivative, and none to be had."""
    bits = b.detach().numpy() > 0.5
    return torch.from_numpy((bits[..., 1:] & ~bits[..., :-1]).sum(-1).astype(int) + bits[..., 0])


@pytest.mark.parametrize("name", [name for name, make in MAKERS.items() if Bernoulli in make().latents])
def test_an_f_without_a_derivative_serves_those_that_need_none_and_is_refused_by_the_others(name, q):
    estimator = built(MAKERS[name](), None)
    if estimator.differentiates:
        with pytest.raises(InputError, match=r"needs the derivative of f, but f has none .* take REINFORCE, LOO, DisARM, or RELAX"):
            estimator(integer_reward, q)
    else:
        assert estimator(integer_reward, q).grad.isfinite().all()


def test_estimators_refuse_latents_that_their_equation_is_not_for(categorical):
    with pytest.raises(InputError, match="DisARM is for Bernoulli latents, got Categorical"):
        DisARM()(quadratic, categorical)
    with pytest.raises(InputError, match="REBAR is for Bernoulli or Categorical or PlackettLuce latents, got Gaussian"):
        dvae.DiscreteVAE(REBAR(), latent="Gaussian")


def test_loss_gives_logits_the_estimate_theta_its_gradient_and_phi_the_variances(q, context):
    estimator, f = built(RELAX(hidden=5), context), Quadratic()
    logits = q.logits.clone().requires_grad_()
    estimate = estimator(f, Bernoulli(logits), context, noise=noise_for(estimator, q))
    phi = list(estimator.parameters())
    second_moment = torch.autograd.grad(estimate.grad.square().sum(-1).mean(), phi, retain_graph=True)
    value = torch.autograd.grad(estimate.value.mean(), f.weight, retain_graph=True)
    estimate.loss(logits).backward()
    torch.testing.assert_close(logits.grad, -estimate.grad.detach() / B)
    torch.testing.assert_close(f.weight.grad, -value[0])
    for parameter, gradient in zip(phi, second_moment, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_facts_come_from_the_class_and_its_docstring():
    first = facts(DisARM)
    assert first == Facts(
        "DisARM", "ARM with the uniforms integrated out given the pair; also called U2G", "2", "no", "Bernoulli", "yes",
        "Dong, Mnih & Tucker 2020",
    )  # fmt: skip
    for make in CATALOGUE.values():
        known = facts(type(make()))
        assert known.source or known.name == "Exact"


def test_a_plain_function_of_trainable_parameters_is_refused(q):
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match=r"must be an nn\.Module that owns them"):
        REBAR().double()(lambda b: weight * quadratic(b), q)


def test_an_objective_of_the_wrong_shape_is_refused(q):
    with pytest.raises(InputError, match=r"one value per example, shape \(1, 5\)"):
        REINFORCE()(lambda b: b, q)


def test_a_subclass_without_an_equation_says_what_to_write(q):
    class Empty(GradientEstimator):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define gradient"):
        Empty()(quadratic, q)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: REINFORCE(num_samples=0), "num_samples must be at least 1, got 0"),
        (lambda: REINFORCE("mean"), "baseline must be None or 'moving_average', got 'mean'"),
        (lambda: REINFORCE("moving_average", decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
        (lambda: LOO(1), "num_samples must be at least 2"),
        (lambda: Concrete(0.0), "temperature must be positive, got 0.0"),
        (lambda: REBAR(temperature=-0.5), "temperature must be positive, got -0.5"),
        (lambda: RELAX(depth=0), "hidden and depth must be at least 1, got 200 and 0"),
        (lambda: DoubleCV(1), "num_samples must be at least 2"),
        (lambda: RODEO(1), "num_samples must be at least 2"),
        (lambda: RODEO(hidden=0), "hidden and depth must be at least 1, got 0 and 1"),
        (lambda: VIMCO(1), "num_samples must be at least 2"),
        (lambda: VIMCO(3, "harmonic"), "mean must be 'geometric' or 'arithmetic', got 'harmonic'"),
        (lambda: ARMS(1), "size must be at least 2, got 1"),
        (lambda: GumbelStraightThrough(-1.0), "temperature must be positive, got -1.0"),
        (lambda: LAX(depth=0), "hidden and depth must be at least 1, got 200 and 0"),
        (
            lambda: Exact()(lambda b: b.sum(-1), Bernoulli(torch.zeros(1, 30))),
            "Exact enumerates at most 1048576 states, got 1073741824",
        ),
        (lambda: RELAX(weight_decay=-1.0), "weight_decay must not be negative, got -1.0"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_draw_carries_what_the_base_class_drew(q):
    seen: list[Draw] = []

    class Spy(REINFORCE):
        def update(self, draw):
            seen.append(draw)

    Spy(num_samples=K)(quadratic, q)
    assert seen[0].b.shape == (K, B, D)
    assert torch.equal(seen[0].value, quadratic(seen[0].b))
