"""The certificate of a model's whole training step, under every likelihood, and what it must reject."""

import pytest
import torch

import dvae
from dvae import InputError
from dvae.lab.certify import certify_model
from dvae.likelihoods import Likelihood

LIKELIHOODS = {
    "Bernoulli": dvae.likelihoods.Bernoulli,
    "Categorical": lambda: dvae.likelihoods.Categorical(levels=4),
    "ContinuousBernoulli": dvae.likelihoods.ContinuousBernoulli,
    "DiscretizedLogistic": lambda: dvae.likelihoods.DiscretizedLogistic(levels=4),
    "Multinomial": dvae.likelihoods.Multinomial,
    "NegativeBinomial": dvae.likelihoods.NegativeBinomial,
    "Normal": dvae.likelihoods.Normal,
    "Poisson": dvae.likelihoods.Poisson,
}
X = torch.tensor([[1.0, 0.0, 1.0]])


def small_model(estimator: str, likelihood: Likelihood, **options) -> dvae.VAE:
    torch.manual_seed(0)
    made = getattr(dvae.estimators, estimator)()
    model = dvae.VAE(made, num_pixels=3, num_latents=3, likelihood=likelihood, **options)
    with torch.no_grad():
        for parameter in model.theta():
            parameter.copy_(torch.randn(parameter.shape))
    return model


def test_every_likelihood_has_its_certificate():
    assert set(LIKELIHOODS) == {
        name
        for name in dvae.likelihoods.__all__
        if isinstance(cls := getattr(dvae.likelihoods, name), type) and issubclass(cls, Likelihood) and cls is not Likelihood
    }


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_whole_step_is_unbiased_under_every_likelihood(name):
    assert certify_model(small_model("REBAR", LIKELIHOODS[name]()), X, num_samples=4000, phi_steps=40).max_z < 4


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("estimator", ["REINFORCE", "LOO", "DisARM", "REBAR", "RELAX"])
def test_the_whole_step_is_unbiased_at_many_draws(name, estimator):
    assert certify_model(small_model(estimator, LIKELIHOODS[name]()), X, num_samples=200_000).max_z < 4


@pytest.mark.parametrize("name", ["Normal", "Multinomial"])
def test_a_biased_estimator_is_rejected(name):
    assert certify_model(small_model("StraightThrough", LIKELIHOODS[name]()), X, num_samples=4000, phi_steps=40).max_z > 5


def test_the_model_stays_as_it_was():
    model = small_model("RELAX", dvae.likelihoods.Bernoulli())
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    certify_model(model, X, num_samples=400)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert model.mean.dtype == torch.float32


def test_what_cannot_be_enumerated_is_refused():
    with pytest.raises(InputError, match="at most 65536 states to be enumerated, got"):
        certify_model(dvae.VAE(num_pixels=3, num_latents=40), X)
    with pytest.raises(InputError, match=r"x must be one example, \[1, 3\], got \[2, 3\]"):
        certify_model(small_model("LOO", dvae.likelihoods.Bernoulli()), X.expand(2, -1))
    with pytest.raises(dvae.InputError, match="phi_steps must be at least 1, got 0"):
        certify_model(small_model("LOO", dvae.likelihoods.Bernoulli()), X, phi_steps=0)
