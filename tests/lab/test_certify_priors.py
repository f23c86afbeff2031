"""The certificate of the whole training step under priors that are not factorial, and the mutants that it must reject."""

from types import SimpleNamespace

import pytest
import torch

import dvae
from dvae.lab.certify import certify_model
from dvae.latents import Bernoulli
from dvae.priors import Autoregressive, BoltzmannMachine, Prior

LATENTS = {
    "Bernoulli": {"num_latents": 4},
    "Categorical": {"latent": "Categorical", "num_latents": 3, "num_classes": 3},
}
X = torch.tensor([[1.0, 0.0, 1.0]])


class LogitsOfHardLatents(Autoregressive):
    """Takes the logits of a relaxed code from the hard latents before."""

    def forward(self):
        inner = super().forward()
        return SimpleNamespace(log_prob=lambda b: Bernoulli(self.network(2 * hard(b) - 1)).log_prob(b), sample=inner.sample)


class EnergyOfHardCode(BoltzmannMachine):
    """Has the couplings of a relaxed code at the hard one."""

    def forward(self):
        inner = super().forward()

        def log_prob(b):
            return inner.log_prob(hard(b)) + (b - hard(b)) @ self.bias

        return SimpleNamespace(log_prob=log_prob, sample=inner.sample)


def hard(b: torch.Tensor) -> torch.Tensor:
    return (b > 0.5).to(b.dtype)


def small_model(estimator: str, prior: Prior, latents: str = "Bernoulli", scale: float = 1.5, **options) -> dvae.VAE:
    torch.manual_seed(0)
    made = getattr(dvae.estimators, estimator)(**({"hidden": 10} if estimator == "RELAX" else {}))
    model = dvae.VAE(made, num_pixels=3, prior=prior, **LATENTS[latents], **options)
    with torch.no_grad():
        for name, parameter in model.named_theta():
            parameter.copy_((scale if name.startswith("prior.") else 1.0) * torch.randn(parameter.shape))
    return model


ESTIMATORS = ("REINFORCE", "LOO", "DisARM", "REBAR", "RELAX")
PRIORS = {
    "Autoregressive": lambda: Autoregressive(hidden=[8], activation="tanh"),
    "BoltzmannMachine": lambda: BoltzmannMachine(num_chains=5),
}
CASES = [
    (prior, latents, estimator)
    for prior in PRIORS
    for latents in LATENTS
    for estimator in ESTIMATORS
    if (latents, estimator) != ("Categorical", "DisARM")  # it is for bits
]
MUTANTS = {
    "Autoregressive": lambda: LogitsOfHardLatents(hidden=[8], activation="tanh"),
    "BoltzmannMachine": lambda: EnergyOfHardCode(num_chains=5),
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("estimator", ["DisARM", "REBAR"])
def test_the_whole_step_is_unbiased_under_every_prior(prior, estimator):
    assert certify_model(small_model(estimator, PRIORS[prior]()), X, num_samples=4000).max_z < 4


@pytest.mark.slow
@pytest.mark.parametrize(("prior", "latents", "estimator"), CASES)
def test_the_whole_step_is_unbiased_at_many_draws(prior, latents, estimator):
    assert certify_model(small_model(estimator, PRIORS[prior](), latents), X, num_samples=200_000).max_z < 4


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("estimator", ["REBAR", "RELAX"])
def test_a_prior_that_looks_at_the_hard_code_is_rejected(name, estimator):
    assert certify_model(small_model(estimator, MUTANTS[name]()), X, num_samples=10_000).max_z > 5


def test_every_prior_but_the_factorial_ones_has_its_certificate():
    assert set(PRIORS) == set(dvae.priors.__all__) - {"Factorial", "Prior", "SpatialFactorial"}
