"""Permutations: probabilities, derivatives and samples of the Plackett-Luce distribution, against enumeration and autograd."""

import math

import pytest
import torch

import dvae
from dvae import InputError
from dvae.latents import NeuralSortPlackettLuce, PlackettLuce, SinkhornPlackettLuce, permutation_matrix
from dvae.training.step import step_loss

LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# An order's training step is many small operations.
PHI_STEPS = 40
RELAXATIONS = [PlackettLuce, NeuralSortPlackettLuce, SinkhornPlackettLuce]


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


@pytest.mark.parametrize("family", RELAXATIONS)
def test_soft_ranks_lie_between_the_first_and_the_last_and_become_the_hard_ones(family):
    q = family(LOGITS)
    z = q.relaxed(noise(100, 3, 5))
    for temperature in (0.1, 1.0, 100.0):
        soft = q.soft(z, temperature)
        assert soft.min() >= -1e-9
        assert soft.max() <= 4 + 1e-9
    torch.testing.assert_close(q.soft(z, 1e-5), q.hard(z), atol=1e-6, rtol=0)
    torch.testing.assert_close(q.soft(z, 1e5), torch.full_like(z, 2.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", RELAXATIONS[1:])
@pytest.mark.parametrize("make", [dvae.estimators.REBAR, lambda: dvae.estimators.RELAX(hidden=16)])
def test_estimators_are_unbiased_with_every_relaxation(family, make):
    certificate = dvae.certify(make(), latents=[family], num_problems=1, num_samples=4000, phi_steps=PHI_STEPS)
    assert certificate.passed, certificate.verdict
    assert certificate.reports[-1].problem == f"{family.__name__}: two layers"


@pytest.mark.parametrize("family", RELAXATIONS[1:])
@pytest.mark.parametrize("temperature", [1e-3, 10.0])
def test_relaxations_and_their_derivatives_stay_finite_for_extreme_logits(family, temperature):
    q = family(torch.tensor([[-100.0, -100.0, 88.8, 0.0, 100.0]]))
    z = q.relaxed(torch.tensor([[0.0, 1.0, 0.5, 1e-30, 1 - 2**-24]])).requires_grad_()
    soft = q.soft(z, temperature)
    derivative = torch.autograd.grad(q.log_prob(soft).sum() + soft.square().sum(), z, create_graph=True)[0]
    assert torch.cat([soft, derivative, *torch.autograd.grad(derivative.square().sum(), z)]).isfinite().all()


def test_a_permutation_matrix_puts_items_into_their_order():
    ranks = PlackettLuce(LOGITS).sample(7)
    matrix = permutation_matrix(ranks)
    items = torch.randn(3, 5, 2, dtype=torch.float64)
    in_order = items.expand(7, -1, -1, -1).gather(-2, ranks.argsort(-1)[..., None].expand(-1, -1, -1, 2))
    torch.testing.assert_close(matrix @ items, in_order, atol=0, rtol=0)
    assert torch.equal(matrix.sum(-1), torch.ones_like(ranks))


def test_a_soft_permutation_matrix_has_columns_that_sum_to_one_and_a_derivative():
    ranks = (4 * noise(3, 5)).requires_grad_()
    matrix = permutation_matrix(ranks)
    torch.testing.assert_close(matrix.sum(-2), torch.ones_like(ranks))
    torch.testing.assert_close(torch.arange(5.0, dtype=torch.float64) @ matrix, ranks)
    assert torch.autograd.gradcheck(permutation_matrix, (ranks,))


def test_the_log_probability_has_no_jump_where_soft_ranks_cross():
    q = PlackettLuce(LOGITS[0])
    ranks = 4 * noise(1000, 5)  # all of them, at random, within a rank of others
    near, nearer = ranks.clone(), ranks.clone()
    near[:, 1] = ranks[:, 0] + 1e-9
    nearer[:, 1] = ranks[:, 0] - 1e-9
    assert (q.log_prob(near) - q.log_prob(nearer)).abs().max() < 1e-7


def test_the_log_probability_at_soft_ranks_has_both_derivatives():
    q = PlackettLuce(LOGITS)
    ranks = (4 * noise(3, 5)).requires_grad_()
    assert torch.autograd.gradcheck(q.log_prob, (ranks,))
    assert torch.autograd.gradgradcheck(q.log_prob, (ranks,))


def test_ten_thousand_items_need_no_square_of_memory():
    """The square is 800 MB, and a hundredth of it is allowed for each tensor."""
    q = PlackettLuce(torch.linspace(-100, 100, 10_000, dtype=torch.float64))
    b, sizes = q.sample(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor):
        logits = q.logits.clone().requires_grad_()
        q = PlackettLuce(logits)
        parts = [q.log_prob(b), q.score(b), q.path(q.relaxed(noise(10_000)), b), q.conditional(b, noise(10_000))]
    assert all(part.isfinite().all() for part in parts)
    assert max(sizes) <= 1_000_000


def test_the_mean_is_the_expected_rank():
    q = PlackettLuce(LOGITS[0])
    states, probs = q.states()
    torch.testing.assert_close(q.mean, probs @ states)


def test_a_model_with_an_order_as_its_code_has_a_bound_and_no_closed_kl():
    model = dvae.VAE(dvae.estimators.LOO(), num_pixels=6, num_latents=4, latent="PlackettLuce")
    x = torch.eye(6)
    assert model.elbo(x).shape == (6,)
    assert model.codes(x).sort(-1).values.tolist() == [[0, 1, 2, 3]] * 6


def test_a_model_learns_what_is_an_order_and_keeps_it_in_its_code():
    """All permutation matrices of three items: the bound cannot be above -log 6 = -1.79, nor without a code above -5.7."""
    torch.manual_seed(0)
    x = permutation_matrix(PlackettLuce(torch.zeros(3)).enumerate()).flatten(1)
    decoder = dvae.networks.MLP(3, 9, hidden=[32])
    model = dvae.VAE(dvae.estimators.LOO(num_samples=8), decoder=decoder, num_pixels=9, num_latents=3, latent="PlackettLuce")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    before = model.elbo(x, 200).mean()
    for _ in range(200):
        optimizer.zero_grad()
        step_loss(model, x, model.noise(len(x))).loss.backward()
        optimizer.step()
    layers = model.sample_layers(x, 200)
    terms = model.terms(x, layers)
    assert before < -5
    assert terms.elbo.mean() > -3
    assert terms.kl.mean() > 1
    assert len(model.codes(x).unique(dim=0)) >= 4


@pytest.mark.parametrize("asked", [{"kl": "analytic"}, {"free_bits": 1.0}, {"kl": "analytic", "kl_balance": 0.5}])
def test_a_model_is_told_at_once_that_orders_have_no_closed_kl(asked):
    with pytest.raises(InputError, match="needs the KL in closed form, which PlackettLuce latents do not have: leave it out"):
        dvae.VAE(num_pixels=6, num_latents=4, latent="PlackettLuce", **asked)


def test_entropy_and_kl_say_what_to_do_instead():
    q = PlackettLuce(LOGITS)
    with pytest.raises(InputError, match=r"no entropy in closed form: average -log_prob\(sample\(\)\)"):
        q.entropy()
    with pytest.raises(InputError, match="no KL in closed form: average"):
        q.kl(q)


@pytest.mark.parametrize("make", [dvae.estimators.LOO, dvae.estimators.REBAR, lambda: dvae.estimators.RELAX(hidden=16)])
def test_estimators_are_unbiased_for_orders(make):
    certificate = dvae.certify(make(), latents=[PlackettLuce], num_problems=2, num_samples=8000, phi_steps=PHI_STEPS)
    assert certificate.passed, certificate.verdict


def test_a_path_without_its_second_part_is_rejected(monkeypatch):
    monkeypatch.setattr(PlackettLuce, "path", lambda self, z, v: v)
    assert not dvae.certify(
        dvae.estimators.REBAR(), latents=[PlackettLuce], num_problems=1, num_samples=4000, phi_steps=PHI_STEPS
    ).passed


def test_scores_stay_finite_for_extreme_logits():
    q = PlackettLuce(torch.linspace(-40, 40, 6)[None])
    for b in (q.mode(), 5 - q.mode()):
        assert q.score(b).isfinite().all()
        assert math.isfinite(q.log_prob(b).item())
