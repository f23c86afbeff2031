"""Permutations: probabilities, derivatives and samples of the Plackett-Luce distribution, against enumeration and autograd."""

import math

import pytest
import torch

import dvae
from dvae import InputError
from dvae.latents import PlackettLuce

LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_probabilities_of_all_orders_sum_to_one():
    q = PlackettLuce(LOGITS[0])
    states, probs = q.states()
    assert states.shape == (120, 5)
    torch.testing.assert_close(probs.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_an_order_is_drawn_as_often_as_its_probability_says():
    q = PlackettLuce(LOGITS[0, :3])
    states, probs = q.states()
    drawn = q.sample(200_000, generator=torch.Generator().manual_seed(0))
    for state, p in zip(states, probs, strict=True):
        frequency = (drawn == state).all(-1).double().mean()
        assert abs(frequency - p) < 4.5 * (p * (1 - p) / 200_000).sqrt()


def test_the_score_is_the_derivative_of_the_log_probability():
    logits = LOGITS.clone().requires_grad_()
    q = PlackettLuce(logits)
    b = q.hard(q.relaxed(noise(3, 5)))
    torch.testing.assert_close(q.score(b), torch.autograd.grad(q.log_prob(b).sum(), logits)[0], atol=1e-12, rtol=0)


def test_a_conditional_sample_has_the_order_that_it_is_given():
    q = PlackettLuce(LOGITS)
    b = q.hard(q.relaxed(noise(1000, 3, 5)))
    assert torch.equal(q.hard(q.conditional(b, noise(1000, 3, 5, seed=2))), b)


def test_conditional_samples_are_distributed_as_samples_of_that_order():
    q = PlackettLuce(LOGITS[0])
    z = q.relaxed(noise(200_000, 5))
    ranks = q.hard(z)
    chosen = z[(ranks == q.mode()).all(-1)]
    other = q.conditional(q.mode().expand(len(chosen), -1), noise(len(chosen), 5, seed=3))
    for power in (1, 2):
        one, two = chosen**power, other**power
        z_score = (one.mean(0) - two.mean(0)) / ((one.var(0) + two.var(0)) / len(chosen)).sqrt()
        assert z_score.abs().max() < 4.5


def test_the_coupled_path_is_the_difference_of_both_derivatives():
    logits = LOGITS.clone().requires_grad_()
    q = PlackettLuce(logits)
    z = q.relaxed(noise(3, 5))
    b, v = q.hard(z), torch.randn(3, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    # The uniforms of the conditional sample that make it z itself.
    order = b.argsort(-1)
    times = torch.exp(-z).gather(-1, order)
    waiting = torch.diff(times, prepend=torch.zeros(3, 1, dtype=torch.float64))
    rest = logits.gather(-1, order).exp().flip(-1).cumsum(-1).flip(-1)
    u = torch.exp(-waiting * rest).gather(-1, b.long()).detach()
    conditional = q.conditional(b, u)
    torch.testing.assert_close(conditional, z, atol=1e-12, rtol=0)
    difference = torch.autograd.grad(((z - conditional) * v).sum(), logits)[0]
    torch.testing.assert_close(q.path(z, v), difference, atol=1e-10, rtol=0)


def test_soft_ranks_become_the_hard_ones():
    q = PlackettLuce(LOGITS)
    z = q.relaxed(noise(3, 5))
    torch.testing.assert_close(q.soft(z, 1e-4), q.hard(z), atol=1e-6, rtol=0)


def test_the_log_probability_has_no_jump_where_soft_ranks_cross():
    q = PlackettLuce(LOGITS[0, :2])
    near = torch.tensor([[0.5 - 1e-9, 0.5 + 1e-9], [0.5 + 1e-9, 0.5 - 1e-9]], dtype=torch.float64)
    one, other = q.log_prob(near)
    assert abs(one - other) < 1e-7


def test_the_mean_is_the_expected_rank():
    q = PlackettLuce(LOGITS[0])
    states, probs = q.states()
    torch.testing.assert_close(q.mean, probs @ states)


def test_a_model_with_an_order_as_its_code_has_a_bound_and_no_closed_kl():
    model = dvae.VAE(dvae.estimators.LOO(), num_pixels=6, num_latents=4, latent="PlackettLuce")
    x = torch.eye(6)
    assert model.elbo(x).shape == (6,)
    assert model.codes(x).sort(-1).values.tolist() == [[0, 1, 2, 3]] * 6
    with pytest.raises(InputError, match="PlackettLuce has no KL in closed form: take kl='sampled'"):
        dvae.VAE(num_pixels=6, num_latents=4, latent="PlackettLuce", kl="analytic").elbo(x)


@pytest.mark.parametrize("make", [dvae.estimators.LOO, dvae.estimators.REBAR, lambda: dvae.estimators.RELAX(hidden=16)])
def test_estimators_are_unbiased_for_orders(make):
    certificate = dvae.certify(make(), latents=[PlackettLuce], num_problems=2, num_samples=8000)
    assert certificate.passed, certificate.verdict


def test_a_path_without_its_second_part_is_rejected(monkeypatch):
    monkeypatch.setattr(PlackettLuce, "path", lambda self, z, v: v)
    assert not dvae.certify(dvae.estimators.REBAR(), latents=[PlackettLuce], num_problems=2, num_samples=8000).passed


def test_scores_stay_finite_for_extreme_logits():
    q = PlackettLuce(torch.linspace(-40, 40, 6)[None])
    for b in (q.mode(), 5 - q.mode()):
        assert q.score(b).isfinite().all()
        assert math.isfinite(q.log_prob(b).item())
