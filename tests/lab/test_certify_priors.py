"""The certificate of the whole training step under priors that are not factorial, and the mutants that it must reject."""

import pytest
import torch

import dvae
from dvae.lab.certify import certify_model
from dvae.latents import Bernoulli
from dvae.priors import Autoregressive, Prior

LATENTS = {
    "Bernoulli": {"num_latents": 4},
    "Categorical": {"latent": "Categorical", "num_latents": 3, "num_classes": 3},
}
X = torch.tensor([[1.0, 0.0, 1.0]])


class AfterHardLatents(Autoregressive):
    """Takes the logits of a relaxed code from the hard latents before."""

    def forward(self):
        return _Mutant(super().forward())


class _Mutant:
    """A prior's distribution, seen at the relaxed code and at the hard one."""

    def __init__(self, inner):
        self.inner = inner

    def log_prob(self, b):
        hard = (b.detach() > 0.5).to(b.dtype)
        return self.of(b, hard)

    def of(self, b, hard):
        logits = self.inner.network(self.inner.latent.features(hard))
        return Bernoulli(logits).log_prob(b)


def small_model(estimator: str, prior: Prior, latents: str = "Bernoulli", scale: float = 1.5, **options) -> dvae.VAE:
    torch.manual_seed(0)
    made = getattr(dvae.estimators, estimator)(**({"hidden": 10} if estimator == "RELAX" else {}))
    model = dvae.VAE(made, num_pixels=3, prior=prior, **LATENTS[latents], **options)
    with torch.no_grad():
        for name, parameter in model.named_theta():
            parameter.copy_((scale if name.startswith("prior.") else 1.0) * torch.randn(parameter.shape))
    return model


ESTIMATORS = ("REINFORCE", "LOO", "DisARM", "REBAR", "RELAX")
PRIORS = {"Autoregressive": lambda: Autoregressive(hidden=[8], activation="tanh")}
CASES = [
    (prior, latents, estimator)
    for prior in PRIORS
    for latents in LATENTS
    for estimator in ESTIMATORS
    if (latents, estimator) != ("Categorical", "DisARM")  # it is for bits
]
MUTANTS = {"Autoregressive": lambda: AfterHardLatents(hidden=[8], activation="tanh")}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("estimator", ["DisARM", "REBAR"])
def test_the_whole_step_is_unbiased_under_every_prior(prior, estimator):
    assert certify_model(small_model(estimator, PRIORS[prior]()), X, num_samples=4000).max_z < 4


@pytest.mark.slow
@pytest.mark.parametrize(("prior", "latents", "estimator"), CASES)
def test_the_whole_step_is_unbiased_at_many_draws(prior, latents, estimator):
    assert certify_model(small_model(estimator, PRIORS[prior](), latents), X, num_samples=200_000).max_z < 4


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("estimator", ["REBAR"])
def test_a_prior_that_looks_at_the_hard_code_is_rejected(name, estimator):
    assert certify_model(small_model(estimator, MUTANTS[name]()), X, num_samples=10_000).max_z > 5
