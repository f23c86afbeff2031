"""Evaluation against enumeration, its error bars, and codes."""

import importlib

import numpy as np
import pytest
import torch

import dvae
from dvae import DiscreteVAE, InputError
from dvae import evaluate as evaluate_function  # the function, not the module of the same name
from dvae.estimators import LOO, REINFORCE, Concrete
from dvae.lab.codes import encode
from dvae.lab.evaluate import _MAX_PIXELS
from dvae.latents import Bernoulli
from dvae.metrics import ActiveUnits, MeanWithError
from dvae.training.gradient_variance import log_gradient_variance


@pytest.fixture
def model(tiny_data) -> DiscreteVAE:
    model = DiscreteVAE(LOO(), num_pixels=16, num_latents=4)
    model.set_mean(tiny_data.mean)
    return model


def test_evaluation_agrees_with_enumeration(model, tiny_data):
    result = evaluate_function(model, tiny_data, num_samples=4000)
    x = tiny_data.split("test").float()
    states = Bernoulli(torch.zeros(4)).enumerate()
    prior = model.prior().log_prob(states)
    with torch.no_grad():
        evidence = torch.stack([torch.logsumexp(prior + model.log_likelihood(row, states), 0) for row in x]).mean().item()
        q = model.encode(x)
        posterior = q.log_prob(states[:, None])
        joint = torch.stack([model.log_likelihood(row, states) for row in x], 1) + prior[:, None]
        elbo = (posterior.exp() * (joint - posterior)).sum(0).mean().item()
    assert result.num_examples == len(x)
    assert result.importance_weighted_bound.mean == pytest.approx(evidence, abs=0.05)
    assert result.elbo.mean == pytest.approx(elbo, abs=0.05)
    assert result.elbo.mean == pytest.approx(result.reconstruction.mean - result.kl.mean, abs=1e-4)


def test_same_seed_same_figures_and_the_standard_error_is_over_examples(model, tiny_data):
    first, second = (evaluate_function(model, tiny_data, num_samples=20, seed=3) for _ in range(2))
    assert first == second
    values = torch.cat([model.elbo(x, 2000).detach() for x in tiny_data.split("test").float().split(5)])
    assert first.elbo.standard_error == pytest.approx((values.std() / len(values) ** 0.5).item(), rel=0.15)


def test_fewer_examples_are_drawn_from_all_and_have_wider_error_bars(model, tiny_data):
    model.set_mean(torch.full((16,), 0.3))  # two kinds of example are of different worth
    in_order = torch.cat([torch.zeros(50, 16), torch.ones(50, 16)])
    data = dvae.data.ArrayData(tiny_data.split("train").float(), test=in_order)
    whole, part = (evaluate_function(model, data, num_examples=number, num_samples=20, num_draws=2) for number in (None, 25))
    assert (whole.num_examples, part.num_examples) == (100, 25)
    assert part.elbo.standard_error == pytest.approx(2 * whole.elbo.standard_error, rel=0.2)
    assert abs(part.elbo.mean - whole.elbo.mean) < 4 * part.elbo.standard_error


def test_many_samples_are_evaluated_in_bounded_pieces(model, tiny_data, monkeypatch):
    whole = evaluate_function(model, tiny_data, num_samples=1000, seed=0)
    largest = []
    original = DiscreteVAE.log_likelihood
    monkeypatch.setattr(
        DiscreteVAE, "log_likelihood", lambda self, x, b: (largest.append(b[..., 0].numel() * 16), original(self, x, b))[1]
    )
    monkeypatch.setattr(importlib.import_module("dvae.lab.evaluate"), "_MAX_PIXELS", 16 * 10 * 50)
    pieces = evaluate_function(model, tiny_data, num_samples=1000, seed=0)
    assert max(largest) <= 16 * 24 * 50
    assert _MAX_PIXELS > 0
    assert pieces.importance_weighted_bound.mean == pytest.approx(whole.importance_weighted_bound.mean, abs=0.05)


def test_analytic_and_sampled_kl_agree_in_expectation(model, tiny_data):
    sampled = evaluate_function(model, tiny_data, num_samples=5000)
    model.kl = "analytic"
    analytic = evaluate_function(model, tiny_data, num_samples=5000)
    assert analytic.kl.mean == pytest.approx(sampled.kl.mean, abs=0.03)
    assert analytic.importance_weighted_bound.mean == pytest.approx(sampled.importance_weighted_bound.mean, abs=0.03)


def test_codes_are_the_modes_of_the_posterior(model, tiny_data):
    x = tiny_data.split("test")
    codes = encode(model, x)
    assert codes.dtype == torch.uint8
    assert torch.equal(codes.bool(), model.encode(x.float()).probs > 0.5)
    two_layers = DiscreteVAE(num_pixels=16, num_latents=4, num_layers=2)
    assert encode(two_layers, x).shape == (len(x), 8)


def test_gradient_variance_ranks_estimators_and_leaves_the_model_alone(tiny_data):
    x = tiny_data.split("train").float()
    variances = {}
    for name, estimator in {"REINFORCE": REINFORCE(), "LOO": LOO(), "Concrete": Concrete()}.items():
        torch.manual_seed(0)
        model = DiscreteVAE(estimator, num_pixels=16, num_latents=4).train()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        variances[name] = log_gradient_variance(model, x, 200)
        assert model.training
        assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert variances["REINFORCE"].encoder > variances["LOO"].encoder + 1
    assert variances["LOO"].encoder > variances["Concrete"].encoder + 0.3
    with pytest.raises(InputError, match="num_draws must be at least 2, got 1"):
        log_gradient_variance(model, x, 1)


def test_gradient_variance_of_reinforce_is_the_enumerated_one():
    """One example, two latents: E[g^2] - E[g]^2 over all four states, averaged over the latents."""
    model = DiscreteVAE(REINFORCE(), num_pixels=4, num_latents=2).double()
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        q = model.encode(x)
        states = q.enumerate()[:, None]
        from dvae.models import Layer

        f = model.terms(x, [Layer(q, states, states)]).elbo
        g, p = f[..., None] * q.score(states), q.log_prob(states).exp()[..., None]
        exact = ((p * g.square()).sum(0) - (p * g).sum(0).square()).mean().log().item()
    assert log_gradient_variance(model, x, 4000).logits == pytest.approx(exact, abs=0.1)


def test_metrics_are_means_over_everything_seen():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    metric = MeanWithError()
    for part in values.split(300):
        metric.update(part)
    assert metric.compute().item() == pytest.approx(values.mean().item(), rel=1e-5)
    assert metric.standard_error.item() == pytest.approx((values.std() / 1000**0.5).item(), rel=1e-4)
    active = ActiveUnits([2])
    active.update(torch.tensor([[0.5, 0.1], [0.5, 0.9]]))
    assert active.compute().item() == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"split": "tset"}, "split must be one of train, valid, test, got 'tset'"),
    ],
)
def test_bad_arguments_are_named(model, tiny_data, kwargs, message):
    with pytest.raises(InputError, match=message):
        evaluate_function(model, tiny_data, **kwargs)


def test_data_of_another_size_and_missing_data_are_refused(model):
    with pytest.raises(InputError, match="data must have 16 values per example for this model, got 9"):
        evaluate_function(model, dvae.data.ArrayData(np.eye(9), test=np.eye(9)))
    with pytest.raises(InputError, match="data must be given"):
        evaluate_function(model)


def test_the_labs_modules_are_there_without_being_imported_one_by_one():
    import dvae.lab

    assert dvae.lab.codes.encode_labelled
    with pytest.raises(AttributeError, match="no attribute 'cellar'"):
        _ = dvae.lab.cellar
