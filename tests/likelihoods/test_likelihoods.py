"""Every likelihood of the library: normalised, and started at the data's mean."""

import pytest
import torch

import dvae
from dvae import InputError
from dvae.likelihoods import Likelihood
from dvae.objectives import bernoulli_log_likelihood

CLASSES = [
    cls
    for cls in (getattr(dvae.likelihoods, name) for name in dvae.likelihoods.__all__)
    if isinstance(cls, type) and issubclass(cls, Likelihood) and cls is not Likelihood
]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def likelihood(request) -> Likelihood:
    return request.param()


def outputs_of(likelihood: Likelihood, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    *batch, pixels = shape
    return torch.randn(*batch, pixels * likelihood.outputs_per_pixel, generator=generator, dtype=torch.float64)


def test_probabilities_sum_to_one(likelihood):
    distribution = likelihood(outputs_of(likelihood, 1, 7))
    if not distribution.has_enumerate_support:
        pytest.skip("continuous, or without an end")
    values = distribution.enumerate_support()
    torch.testing.assert_close(distribution.log_prob(values).exp().sum(0), torch.ones(1, 7, dtype=torch.float64))
    assert all(likelihood.covers(value) for value in values)


def test_an_examples_log_probability_is_the_sum_over_its_pixels(likelihood):
    outputs = outputs_of(likelihood, 3, 5, 7)
    x = likelihood(outputs).sample()
    assert x.shape == (3, 5, 7)
    likelihood.check(x)
    torch.testing.assert_close(likelihood.log_prob(x, outputs), likelihood(outputs).log_prob(x).sum(-1))


def test_outputs_start_at_the_datas_mean(likelihood):
    mean = torch.linspace(likelihood.low, likelihood.high, 9, dtype=torch.float64)[1:-1]
    start = likelihood.start(mean)
    assert start.shape == (7 * likelihood.outputs_per_pixel,)
    torch.testing.assert_close(likelihood.mean(start), mean, atol=0.01, rtol=0.01)


def test_values_outside_the_range_are_refused(likelihood):
    with pytest.raises(InputError, match="x must hold values in"):
        likelihood.check(torch.tensor([[likelihood.high + 1.0]]))
    with pytest.raises(InputError, match="x must hold values in"):
        likelihood.check(torch.tensor([[float("nan")]]))


def test_grey_levels_are_no_values_of_binary_pixels():
    likelihood = dvae.likelihoods.Bernoulli()
    grey, outputs = torch.tensor([[0.25, 1.0]], dtype=torch.float64), torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    assert not likelihood.covers(grey)
    torch.testing.assert_close(likelihood.log_prob(grey, outputs), bernoulli_log_likelihood(grey, outputs))


def test_half_precision_outputs_add_up_in_float32():
    likelihood = dvae.likelihoods.Bernoulli()
    x = torch.ones(1, 784)
    assert likelihood.log_prob(x, torch.full((1, 784), 0.1, dtype=torch.bfloat16)).dtype == torch.float32
