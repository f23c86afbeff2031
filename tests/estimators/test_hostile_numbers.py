"""Extreme logits, uniforms at their ends, tiny temperatures: nothing may turn into a NaN or an infinity."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dvae
from dvae.estimators import CATALOGUE, Concrete, GradientEstimator, GumbelStraightThrough
from dvae.latents import Bernoulli, Categorical, Gaussian, Latent, PlackettLuce
from dvae.training.step import step_loss

FAMILIES: dict[str, type[Latent]] = {
    "Bernoulli": Bernoulli,
    "Categorical": Categorical,
    "Gaussian": Gaussian,
    "PlackettLuce": PlackettLuce,
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
COMBINATIONS = [(name, family) for name, make in CATALOGUE.items() for family, cls in FAMILIES.items() if cls in make().latents]

# The ends of every range, and what lies between.
logits = st.one_of(st.sampled_from([-100.0, -88.8, -30.0, -1e-30, 0.0, 1e-30, 17.0, 88.8, 100.0]), st.floats(-100, 100))
uniforms = st.one_of(st.sampled_from([0.0, 1e-45, 1e-30, 0.5, 1 - 2**-24, 1.0]), st.floats(0, 1))
temperatures = st.sampled_from([1e-3, 0.1, 0.5, 10.0])


def made(name: str, temperature: float) -> GradientEstimator:
    """The catalogue's estimator, with small networks and at this temperature."""
    estimator = CATALOGUE[name]()
    if isinstance(getattr(estimator, "hidden", None), int):
        estimator.hidden = 10
    if isinstance(estimator, (Concrete, GumbelStraightThrough)):
        estimator.temperature = temperature
    if hasattr(estimator, "log_temperature"):
        torch.nn.init.constant_(estimator.log_temperature, math.log(temperature))
    return estimator


def objective(family: type[Latent]):
    """Quadratic, with values in the hundreds, as an ELBO's."""

    def f(b):
        flat = family.flat(b)
        weights = torch.linspace(-1, 1, flat.shape[-1], dtype=b.dtype, device=b.device)
        return -100 - 10 * (flat @ weights) - (flat * weights).square().sum(-1)

    return f


def distribution(family: str, values: torch.Tensor, dtype: torch.dtype) -> Latent:
    """One example: D variables from a list of numbers."""
    if family == "Categorical":
        values = torch.stack([values, values.flip(0), torch.zeros_like(values)], -1)
    elif family == "Gaussian":
        values = torch.stack([values, (values / 20).clamp(-5, 5)], -1)  # exp(100) is no standard deviation
    return FAMILIES[family](values[None].to(dtype))


def outcome(estimator: GradientEstimator, q: Latent, noise: torch.Tensor) -> dict[str, torch.Tensor]:
    """Value, gradient, and the gradient of the variance for each parameter of phi."""
    estimate = estimator(objective(type(q)), q, noise=noise)
    phi = dict(estimator.named_parameters())
    parts = {"value": estimate.value, "gradient": estimate.grad}
    if phi:
        gradients = torch.autograd.grad(estimate.grad.square().sum(), list(phi.values()), allow_unused=True)
        parts |= {f"variance's gradient for {name}": g for name, g in zip(phi, gradients, strict=True) if g is not None}
    return parts


@pytest.mark.parametrize(("name", "family"), COMBINATIONS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_estimator_gives_a_nan_or_an_infinity(name, family, data):
    size = data.draw(st.sampled_from([1, 3]))
    values = torch.tensor(data.draw(st.lists(logits, min_size=size, max_size=size)), dtype=torch.float64)
    dtype = data.draw(st.sampled_from(DTYPES))
    torch.manual_seed(0)
    estimator = made(name, data.draw(temperatures))
    q = distribution(family, values, dtype)
    noise = q.noise(estimator.num_noise, estimator.num_samples)
    ends = data.draw(st.lists(uniforms, min_size=4, max_size=4))
    noise.reshape(-1)[: len(ends)] = torch.tensor(ends[: noise.numel()], dtype=noise.dtype)
    estimator.ensure_built(q.flat(q.mode()).shape[-1], 0)
    estimator.to(q.logits.dtype)
    for part, value in outcome(estimator, q, noise).items():
        assert value.isfinite().all(), (part, value)


LARGE = [combination for combination in COMBINATIONS if combination[0] != "Exact"]


# An order of ten thousand takes seconds for each of an estimator's samples.
SLOW = [name for name in LARGE if name[1] == "PlackettLuce" and name[0] not in ("REINFORCE", "REBAR")]


@pytest.mark.parametrize(("name", "family"), [pytest.param(*one, marks=pytest.mark.slow) if one in SLOW else one for one in LARGE])
def test_ten_thousand_latents_stay_finite(name, family):
    """Logits over the whole range at once; memory must not grow with the square of D."""
    torch.manual_seed(0)
    estimator = made(name, 0.5)
    q = distribution(family, torch.linspace(-100, 100, 10_000), torch.float32)
    estimator.ensure_built(q.flat(q.mode()).shape[-1], 0)
    for part, value in outcome(estimator, q, q.noise(estimator.num_noise, estimator.num_samples)).items():
        assert value.isfinite().all(), part


@pytest.mark.parametrize(("name", "family"), COMBINATIONS)
def test_float32_is_within_its_rounding_of_float64(name, family):
    """On the same noise: 1e-4 of the largest component, where values are in the hundreds and their rounding 1e-5."""
    torch.manual_seed(0)
    estimator = made(name, 0.5).eval()  # the same running averages for both
    for scale in (1.0, 10.0):
        values = scale * torch.linspace(-1, 1, 5)
        single, double = (distribution(family, values, dtype) for dtype in (torch.float32, torch.float64))
        noise = single.noise(estimator.num_noise, estimator.num_samples).clamp(1e-3, 1 - 1e-3)
        estimator.ensure_built(single.flat(single.mode()).shape[-1], 0)
        expected = outcome(estimator.double(), double, noise.double())
        actual = outcome(estimator.float(), single, noise)
        for part, value in expected.items():
            if not part.startswith("variance"):
                tolerance = 1e-4 * max(value.abs().max().item(), 1.0)
                torch.testing.assert_close(actual[part].double(), value, atol=tolerance, rtol=0, msg=f"{part} at scale {scale}")


@pytest.mark.parametrize("latent", ["Bernoulli", "Categorical", "PlackettLuce"])
def test_model_with_extreme_weights_and_pixels_has_a_finite_loss(latent):
    """Weights in the hundreds drive every logit to its end, in the encoder, the decoder and the prior."""
    num_classes = 3 if latent == "Categorical" else None
    for scale in (30.0, 300.0):
        model = dvae.DiscreteVAE(num_pixels=6, num_latents=4, latent=latent, num_classes=num_classes, num_layers=2, seed=0)
        with torch.no_grad():
            for parameter in model.theta():
                parameter.copy_(scale * torch.randn_like(parameter))
        model.set_mean(torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0]))
        x = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
        output = step_loss(model, x, model.noise(1))
        output.loss.backward()
        assert output.loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
