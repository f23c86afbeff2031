"""Gradients where f was evaluated elsewhere."""

import numpy as np
import pytest
import torch

import dvae
from dvae.estimators import LOO, NVIL, REBAR, REINFORCE, RELAX
from dvae.latents import Categorical

LOGITS = torch.tensor([[0.3, -0.8, 0.5]], dtype=torch.float64)
REWARD = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
EXACT = torch.softmax(LOGITS[0], 0) * (REWARD - (torch.softmax(LOGITS[0], 0) * REWARD).sum())


@pytest.mark.parametrize(
    "estimator",
    [REINFORCE(), LOO(), RELAX(black_box=True, hidden=8), RELAX(black_box=True, hidden=8, coupled=False)],
    ids=lambda own: f"{type(own).__name__}{own.num_noise}",
)
def test_the_gradient_is_unbiased(estimator):
    torch.manual_seed(0)
    q = Categorical(LOGITS.expand(200_000, 1, 1, 3).flatten(0, 1))
    b = q.sample(estimator.num_samples)
    estimator.ensure_built(3, 0)
    grad = estimator.double().given(q, b, (b * REWARD).sum((-2, -1)))[:, 0]
    z = (grad.mean(0) - EXACT) / (grad.std(0) / len(grad) ** 0.5)
    assert z.abs().max() < 4


def test_a_value_may_be_an_array_of_whole_numbers():
    q = Categorical(torch.zeros(5, 1, 3))
    b = q.sample()
    assert torch.equal(REINFORCE().given(q, b, np.arange(5)), q.score(b, torch.arange(5.0)))


def test_a_context_reaches_the_baseline():
    torch.manual_seed(0)
    q = Categorical(torch.zeros(5, 1, 3))
    b, baseline = q.sample(), NVIL([4], moving_average=False)
    baseline.ensure_built(3, 2)
    torch.nn.init.constant_(baseline.network.layers[-1].bias, 2.0)
    assert torch.equal(baseline.given(q, b, torch.full((5,), 2.0), torch.ones(5, 2)), torch.zeros(5, 1, 3))


@pytest.mark.parametrize(
    ("estimator", "b", "value", "message"),
    [
        (REBAR(), (5, 1, 3), (5,), "REBAR needs f at other samples than those drawn"),
        (RELAX(), (5, 1, 3), (5,), "pass black_box=True"),
        (REINFORCE(), (4, 1, 3), (4,), r"b must be num_samples=1 samples for each example as q draws them, \(1, 5, 1, 3\)"),
        (LOO(), (5, 1, 3), (5,), "b must be num_samples=2 samples"),
        (REINFORCE(), (5, 1, 3), (5, 2), "value one number for each"),
    ],
)
def test_what_cannot_be_given_is_told(estimator, b, value, message):
    with pytest.raises(dvae.InputError, match=message):
        estimator.given(Categorical(torch.zeros(5, 1, 3)), torch.zeros(b), torch.zeros(value))


def test_variance_normalization_needs_a_moving_average():
    with pytest.raises(dvae.InputError, match="variance_normalization needs the moving average"):
        NVIL(variance_normalization=True, moving_average=False)
