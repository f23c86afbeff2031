"""Estimators by themselves: what q and f may be, and what a user's own loop is told."""

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, Normal, OneHotCategorical

import dvae
from dvae import InputError
from dvae.estimators import CATALOGUE, DisARM
from dvae.latents import FAMILIES, Bernoulli, Categorical, Gaussian

SHAPES = {Bernoulli: (3,), Categorical: (3, 4), Gaussian: (3, 2)}
EVERYWHERE = [(name, family) for name, make in CATALOGUE.items() for family in FAMILIES if family in make().latents]


def as_torch(family, logits: torch.Tensor) -> torch.distributions.Distribution:
    if family is Bernoulli:
        return TorchBernoulli(logits=logits)
    if family is Categorical:
        return OneHotCategorical(logits=logits)
    return Normal(logits[..., 0], logits[..., 1].exp())


@pytest.mark.parametrize(("name", "family"), EVERYWHERE)
def test_q_may_be_a_distribution_of_pytorch(name, family):
    logits = torch.randn(5, *SHAPES[family], requires_grad=True)
    estimator = CATALOGUE[name]()
    noise = family(logits).noise(estimator.num_noise, estimator.num_samples)

    def f(b):
        return family.flat(b).square().sum(-1)

    # Running statistics stand still in evaluation mode.
    expected = estimator.eval()(f, family(logits), noise=noise)
    estimate = estimator(f, Independent(as_torch(family, logits), 1), noise=noise)
    torch.testing.assert_close(estimate.grad, expected.grad, atol=1e-5, rtol=1e-5)
    estimate.loss(dvae.latents.of(as_torch(family, logits)).logits).backward()
    torch.testing.assert_close(logits.grad, -expected.grad.detach() / 5, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "family"), EVERYWHERE)
def test_a_single_example_needs_no_dimension_of_its_own(name, family):
    logits = torch.randn(SHAPES[family], requires_grad=True)
    estimate = CATALOGUE[name]()(lambda b: family.flat(b).square().sum(-1), as_torch(family, logits), torch.randn(6))
    estimate.loss(dvae.latents.of(as_torch(family, logits)).logits).backward()
    assert estimate.value.shape == ()
    torch.testing.assert_close(logits.grad, -estimate.grad.detach(), atol=1e-5, rtol=1e-5)


def test_a_family_that_is_not_supported_is_never_named_like_one_that_is():
    class Bernoulli(dvae.latents.Latent):
        pass

    with pytest.raises(
        InputError, match=r"DisARM is for Bernoulli latents, got .*\.<locals>\.Bernoulli"
    ):
        DisARM().require_support(Bernoulli)
    with pytest.raises(InputError, match="DisARM is for Bernoulli latents, got Gaussian"):
        DisARM()(lambda b: b.sum(-1), Normal(torch.zeros(5, 3), 1.0))
