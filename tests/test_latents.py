"""Bernoulli against torch.distributions, autograd and enumeration."""

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, kl_divergence

from dvae import InputError
from dvae.latents import Bernoulli

LOGITS = torch.tensor([[-3.0, -0.5, 0.0, 2.0], [0.3, 8.0, -8.0, 1.0]], dtype=torch.float64)


def torch_bernoulli(logits: torch.Tensor) -> Independent:
    return Independent(TorchBernoulli(logits=logits), 1)


def test_log_prob_entropy_and_kl_are_those_of_torch_distributions():
    q, p = Bernoulli(LOGITS), Bernoulli(LOGITS.flip(0) / 2)
    b = (LOGITS > 0.1).double()
    torch.testing.assert_close(q.log_prob(b), torch_bernoulli(LOGITS).log_prob(b))
    torch.testing.assert_close(q.entropy(), torch_bernoulli(LOGITS).entropy())
    torch.testing.assert_close(q.kl(p), kl_divergence(torch_bernoulli(LOGITS), torch_bernoulli(LOGITS.flip(0) / 2)))


def test_score_is_the_derivative_of_log_prob():
    b = (LOGITS > 0.1).double()
    derivative = torch.func.grad(lambda logits: Bernoulli(logits).log_prob(b).sum())(LOGITS)
    torch.testing.assert_close(Bernoulli(LOGITS).score(b), derivative)


def test_enumeration_holds_every_state_once_and_probabilities_sum_to_one():
    q = Bernoulli(LOGITS[0])
    states = q.enumerate()
    assert states.unique(dim=0).shape == (16, 4)
    assert q.log_prob(states).exp().sum().item() == pytest.approx(1.0)


def test_hard_samples_have_the_right_frequencies():
    q = Bernoulli(LOGITS)
    u = q.noise(100_000, generator=torch.Generator().manual_seed(0))
    frequency = q.hard(q.relaxed(u)).mean(0)
    z = (frequency - q.probs) / (q.probs * (1 - q.probs) / 100_000).sqrt()
    assert z.abs().max() < 4


def test_conditional_samples_keep_their_hard_sample_and_have_the_marginal_law():
    """b ~ q and then z~ | b must together be distributed as z: compared by the mean and second moment of sigmoid(z)."""
    q = Bernoulli(LOGITS)
    generator = torch.Generator().manual_seed(0)
    z = q.relaxed(q.noise(200_000, generator=generator))
    b = q.hard(q.relaxed(q.noise(200_000, generator=generator)))
    conditional = q.conditional(b, q.noise(200_000, generator=generator))
    assert torch.equal(q.hard(conditional), b)
    for moment in (torch.sigmoid, lambda t: torch.sigmoid(t).square(), lambda t: torch.tanh(t / 8)):
        first, second = moment(z), moment(conditional)
        error = ((first.var(0) + second.var(0)) / 200_000).sqrt()
        assert ((first.mean(0) - second.mean(0)) / error).abs().max() < 4


def test_conditional_sample_from_the_coupled_uniform_is_the_relaxed_sample():
    q = Bernoulli(LOGITS)
    u = q.noise(1000, generator=torch.Generator().manual_seed(0))
    z = q.relaxed(u)
    b, p = q.hard(z), q.probs
    v = torch.where(b > 0, (u - (1 - p)) / p, u / (1 - p))
    torch.testing.assert_close(q.conditional(b, v), z, atol=1e-8, rtol=1e-8)


def test_path_is_the_difference_of_both_reparameterizations_by_autograd():
    generator = torch.Generator().manual_seed(0)
    u = Bernoulli(LOGITS).noise(500, generator=generator)
    z = Bernoulli(LOGITS).relaxed(u)
    b, p = (z > 0).double(), Bernoulli(LOGITS).probs
    v = torch.where(b > 0, (u - (1 - p)) / p, u / (1 - p)).clamp(1e-12, 1 - 1e-12)
    cotangent = torch.randn(z.shape, generator=generator, dtype=z.dtype)

    def derivative(sample):
        return torch.func.vjp(sample, LOGITS.expand_as(z))[1](cotangent)[0]

    difference = derivative(lambda la: Bernoulli(la).relaxed(u)) - derivative(lambda la: Bernoulli(la).conditional(b, v))
    torch.testing.assert_close(Bernoulli(LOGITS).path(z, cotangent), difference, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_and_uniforms_stay_finite(dtype):
    logits = torch.tensor([-100.0, -20.0, 0.0, 20.0, 100.0], dtype=dtype)
    for uniform in (0.0, 1e-30, 0.5, 1.0):
        q = Bernoulli(logits)
        z = q.relaxed(torch.full_like(logits, uniform))
        b = q.hard(z)
        parts = [z, q.conditional(b, torch.full_like(logits, uniform)), q.path(z, torch.ones_like(z)), q.log_prob(b), q.entropy()]
        assert all(part.isfinite().all() for part in parts)
        weights = q.path(z, torch.ones_like(z))
        assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()


def test_half_precision_logits_are_raised_to_float32():
    assert Bernoulli(torch.zeros(3, dtype=torch.bfloat16)).noise().dtype == torch.float32


def test_logits_without_variables_are_refused():
    with pytest.raises(InputError, match=r"logits must be \[\*, B, D\], got shape \(\)"):
        Bernoulli(torch.tensor(0.0))
