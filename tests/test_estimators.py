"""Every estimator: its equation by hand on the same noise, its certificate, and mutants that must fail it."""

import copy

import pytest
import torch
from torch import nn

import dvae
from dvae import InputError
from dvae.estimators import LOO, NVIL, REBAR, REINFORCE, RELAX, Concrete, Draw, GradientEstimator
from dvae.latents import Bernoulli

B, D, K, C = 5, 3, 2, 4

MAKERS = {
    "REINFORCE": REINFORCE,
    "REINFORCE moving average": lambda: REINFORCE("moving_average"),
    "REINFORCE, 3 samples": lambda: REINFORCE(num_samples=3),
    "LOO": LOO,
    "LOO, 4 samples": lambda: LOO(4),
    "NVIL": NVIL,
    "REBAR": REBAR,
    "REBAR independent": lambda: REBAR(coupled=False),
    "RELAX": lambda: RELAX(hidden=20),
    "RELAX independent": lambda: RELAX(hidden=20, coupled=False),
    "RELAX black box": lambda: RELAX(hidden=20, black_box=True),
    "RELAX, depth 4, 2 samples": lambda: RELAX(hidden=20, depth=4, num_samples=2),
}


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
    estimator = Concrete(0.7)
    noise = noise_for(estimator, q)
    logits = q.logits.clone().requires_grad_()
    quadratic(torch.sigmoid((logits + torch.logit(noise[0, 0])) / 0.7)).sum().backward()
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


# The certificate ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_estimator_is_unbiased_and_costs_what_it_declares(name):
    certificate = dvae.certify(MAKERS[name](), num_problems=8, num_samples=20_000)
    assert certificate.passed, certificate.verdict
    assert certificate.declared_unbiased


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_estimator_is_unbiased_at_200_000_samples(name):
    certificate = dvae.certify(MAKERS[name](), num_problems=20, num_samples=200_000)
    assert certificate.passed, certificate.verdict


def test_every_exported_unbiased_estimator_is_certified_here():
    covered = {type(make()) for make in MAKERS.values()}
    exported = {getattr(dvae.estimators, name) for name in dvae.estimators.__all__ if name not in ("Draw", "Estimate")}
    assert {cls for cls in exported - {GradientEstimator} if cls.unbiased} == covered


class SeenBaseline(REINFORCE):
    """The moving average is updated before it is used."""

    def gradient(self, f, q, draw, context):
        self.update(draw)
        return super().gradient(f, q, draw, context)


class WrongSign(REINFORCE):
    def gradient(self, f, q, draw, context):
        return -super().gradient(f, q, draw, context)


class SelfIncludingBaseline(LOO):
    def gradient(self, f, q, draw, context):
        return (draw.value - draw.value.mean(0))[..., None] * q.score(draw.b)


class NoPath(REBAR):
    """The reparameterized terms are dropped."""

    def gradient(self, f, q, draw, context):
        value = self.control_variate(f, q, draw.z, context)
        return (draw.value - self.eta * value)[..., None] * q.score(draw.b)


class UnconditionalSample(REBAR):
    """z~ is taken for z: the conditional path is left out."""

    def gradient(self, f, q, draw, context):
        value, pull_back = torch.func.vjp(lambda z: self.control_variate(f, q, z, context), draw.z)
        path = pull_back(torch.ones_like(value))[0]
        return (draw.value - self.eta * value)[..., None] * q.score(draw.b) + self.eta * path


class DetachedSurrogate(RELAX):
    def control_variate(self, f, q, z, context):
        return super().control_variate(f, q, z, context).detach()


MUTANTS = {
    "baseline that saw the sample": lambda: SeenBaseline("moving_average"),
    "wrong sign": WrongSign,
    "baseline with the sample itself": SelfIncludingBaseline,
    "no path derivative": NoPath,
    "no conditional path": UnconditionalSample,
    "detached surrogate": lambda: DetachedSurrogate(hidden=10),
    "variance normalization": lambda: NVIL(variance_normalization=True),
    "Concrete": Concrete,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_certificate_fails_every_biased_estimator(name):
    certificate = dvae.certify(MUTANTS[name](), num_problems=8, num_samples=20_000)
    assert not certificate.passed
    assert certificate.max_z > 8


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
    logits = q.logits.clone().requires_grad_()
    estimate = estimator(f, Bernoulli(logits), context)
    assert estimate.value.shape == (B,)
    assert estimate.grad.shape == (B, D)
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


def test_black_box_relax_never_differentiates_f(q):
    def steps(b):
        return torch.from_numpy((b.detach().numpy() > 0.5).sum(-1).astype(float) ** 2)

    estimate = RELAX(black_box=True, hidden=8).double()
    estimate.ensure_built(D, 0)
    assert estimate.double()(steps, q).grad.isfinite().all()


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
