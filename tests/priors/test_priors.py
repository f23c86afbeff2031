"""Every prior of the library, over every discrete family of latents: normalised, and sampled as its probabilities say."""

from dataclasses import replace

import pytest
import torch

import dvae
from dvae import InputError
from dvae.latents import FAMILIES, Discrete, PlackettLuce, Spec
from dvae.priors import Factorial, Prior

CLASSES = [
    cls
    for cls in (getattr(dvae.priors, name) for name in dvae.priors.__all__)
    if isinstance(cls, type) and issubclass(cls, Prior) and cls is not Prior
]
# Of two places, for priors that need a grid.
SPECS = [replace(family.example(4), grid=(2, 1)) for family in FAMILIES if issubclass(family, Discrete)]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def prior(request, spec) -> Prior:
    prior = request.param()
    try:
        prior.build(spec)
    except InputError as error:
        if "is for Bernoulli and Categorical latents" not in str(error):
            raise
        pytest.skip(str(error))
    prior.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            # So large that no state is certain.
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    prior.normalize()
    return prior


@pytest.fixture(params=SPECS, ids=lambda spec: spec.family.__name__)
def spec(request) -> Spec:
    return request.param


def states_of(spec: Spec) -> torch.Tensor:
    return spec(torch.zeros(spec.num_logits, dtype=torch.float64)).enumerate()


def test_probabilities_of_all_states_sum_to_one(prior, spec):
    total = prior().log_prob(states_of(spec)).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64))


def test_states_are_sampled_as_often_as_they_are_probable(prior, spec):
    states, count = states_of(spec).flatten(1), 40_000
    samples = prior().sample(count, generator=torch.Generator().manual_seed(1))
    assert samples.shape == (count, *spec.sample_shape)
    probs = prior().log_prob(states_of(spec)).exp()
    seen = (torch.cdist(samples.flatten(1), states) < 0.1).double().mean(0)
    z = (seen - probs) / (probs * (1 - probs) / count).sqrt()
    assert z.abs().max() < 4.5
    often = probs * count > 10
    chi_square = (count * (seen - probs).square() / probs)[often].sum()
    freedom = int(often.sum()) - 1
    assert (chi_square - freedom) / (2 * freedom) ** 0.5 < 4


def test_the_divergence_is_the_enumerated_one(prior, spec):
    if issubclass(spec.family, PlackettLuce) or not prior.closed_kl:
        pytest.skip("it is not known in closed form")
    generator = torch.Generator().manual_seed(2)
    q = spec(torch.randn(1, spec.num_logits, generator=generator, dtype=torch.float64))
    states = states_of(spec)[:, None]
    log_q = q.log_prob(states)
    expected = (log_q.exp() * (log_q - prior().log_prob(states))).sum(0)
    torch.testing.assert_close(prior.kl(q), expected)


def test_a_prior_of_other_latents_is_refused():
    with pytest.raises(InputError, match="prior: num_latents must be 3, the model's logits, got 4"):
        Factorial(4).build(Spec(dvae.latents.Bernoulli, 3))
    with pytest.raises(InputError, match="num_latents must be at least 1, got 0"):
        Factorial(0)
