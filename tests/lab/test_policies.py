"""Certificates of policy gradients: every honest arm passes, every mutant is rejected."""

import functools

import pytest
import torch

import dvae
from dvae.estimators import LAX, RELAX
from dvae.estimators.control_variates import controlled
from dvae.lab.policies.certificate import TabularProcess, certify_policy
from dvae.latents import Categorical, Gaussian, Spec
from dvae.rl import ARMS, Networks
from dvae.rl.environments import Vectorized


def estimator(name: str, latent=Categorical):
    spec = Spec(latent, 1, 3 if latent is Categorical else None)
    return ARMS[name].estimator(spec, Networks((8,), "tanh"))


def largest(name, latent=Categorical, num_episodes=20_000, **options) -> float:
    made = (lambda: estimator(name, latent)) if isinstance(name, str) else name
    return max(report.max_z for report in certify_policy(made, latent=latent, num_episodes=num_episodes, **options))


@pytest.mark.parametrize(
    ("name", "latent"),
    [
        ("REINFORCE", Categorical),
        ("StateBaseline", Categorical),
        pytest.param("RELAX", Categorical, marks=pytest.mark.slow),  # the guide's command certifies it too
        ("REINFORCE", Gaussian),
        ("LAX", Gaussian),
    ],
)
def test_honest_arms_are_unbiased(name, latent):
    assert largest(name, latent, num_episodes=8000) < 4


class WithoutPath(RELAX):
    def gradient(self, f, q, draw, context):
        value = self.control_variate(f, q, draw.z, context)
        return controlled(q, draw.b, draw.value, self.eta * value, 0 * q.score(draw.b))


class CountsDummies(Vectorized):
    def step(self, sample, going):
        return super().step(sample, going)._replace(counts=going.copy())


def test_a_surrogate_without_its_path_is_rejected():
    options = {"black_box": True, "weight_decay": 0.0, "hidden": 8}
    assert largest(lambda: WithoutPath(**options)) > 6


def test_a_surrogate_at_a_fresh_action_is_rejected():
    assert largest("ReleasedLAX", Gaussian, num_episodes=60_000) > 6


def test_dummy_steps_that_count_are_rejected():
    assert largest("REINFORCE", environments=CountsDummies) > 6


@pytest.mark.slow
def test_the_released_conditional_sample_is_rejected():
    made = functools.partial(estimator, "ReleasedRELAX")
    assert max(report.max_z for report in certify_policy(made, num_episodes=1_000_000)) > 6


def test_expected_returns_are_the_values_of_the_start():
    process = TabularProcess.random(3, seed=1)
    probs = torch.softmax(torch.randn(3, 3, 3, dtype=torch.float64), -1)
    value, _ = process.values(probs)
    assert process.expected_return(probs).item() == pytest.approx((process.start * value[0]).sum().item())


def test_other_numbers_of_actions_are_refused():
    with pytest.raises(dvae.InputError, match="num_actions must be from 2 to 4, got 9"):
        certify_policy(LAX, num_actions=9)
