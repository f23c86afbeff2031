"""Variance at a fixed model: against a direct computation, and what must not happen to the model."""

import math

import pytest
import torch

from dvae import DiscreteVAE, InputError
from dvae.estimators import CATALOGUE, REBAR
from dvae.lab.variance import applicable_estimators, compare_variance
from dvae.report.variance import plot_variance
from dvae.training.gradient_variance import log_gradient_variance


@pytest.fixture
def model(tiny_data):
    torch.manual_seed(0)
    model = DiscreteVAE(REBAR(), num_pixels=16, num_latents=4, seed=0)
    model.set_mean(tiny_data.mean)
    return model


def test_reports_are_the_variance_at_the_models_own_parameters(model, tiny_data):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = ["REINFORCE", "LOO", "LOO(num_samples=4)", "REBAR"]
    reports = {r.estimator: r for r in compare_variance(model, tiny_data, names, num_draws=400, phi_steps=50, batch_size=10)}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    direct = log_gradient_variance(with_estimator(model, "REINFORCE"), tiny_data.split("test")[:10].float(), 400)
    assert reports["REINFORCE"].logits == pytest.approx(direct.logits)
    assert reports["LOO(num_samples=4)"].encoder < reports["LOO"].encoder < reports["REINFORCE"].encoder
    assert reports["REBAR"].encoder < reports["REINFORCE"].encoder
    report = reports["LOO(num_samples=4)"]
    assert report.evaluations == 4
    assert report.encoder_per_evaluation == pytest.approx(report.encoder + math.log(4))
    assert 0 < report.encoder_error < 0.5


def with_estimator(model, name):
    other = DiscreteVAE(CATALOGUE[name](), num_pixels=16, num_latents=4, seed=0)
    other.load_state_dict(model.state_dict(), strict=False)
    return other


def test_error_bars_are_the_spread_of_repeated_measurements(model, tiny_data):
    """Over 20 seeds the log-variance scatters as its standard error says, within the scatter's own error."""
    x = tiny_data.split("test")[:5].float()
    measured = [log_gradient_variance(model, x, 100, seed) for seed in range(20)]
    scatter = torch.tensor([m.encoder for m in measured]).std().item()
    stated = sum(m.encoder_error for m in measured) / len(measured)
    assert 0.5 < stated / scatter < 2


def test_every_applicable_estimator_is_measured_and_drawn(model, tiny_data, tmp_path):
    reports = compare_variance(model, tiny_data, num_draws=20, phi_steps=2, batch_size=5)
    names = applicable_estimators(model.latent.family)
    assert [report.estimator for report in reports] == names
    assert {"RODEO", "ARMS", "Concrete"} <= set(names)
    assert not {"Exact", "LAX", "VIMCO(num_samples=2)"} & set(names)
    assert all(math.isfinite(report.encoder) for report in reports)
    assert plot_variance(reports, tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["FOO"], "estimators must be import paths or out of ARM"),
        (["LAX"], "LAX is for Gaussian latents, got Bernoulli"),
        (["Exact"], "must not enumerate all states, got Exact"),
        (["VIMCO(num_samples=2)"], "must be for the ELBO, got VIMCO"),
    ],
)
def test_what_cannot_be_compared_is_named(names, message, model, tiny_data):
    with pytest.raises(InputError, match=message):
        compare_variance(model, tiny_data, names)
