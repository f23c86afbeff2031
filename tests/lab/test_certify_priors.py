"""The certificate of the whole training step under priors that are not factorial, and the mutants that it must reject."""

from types import SimpleNamespace

import pytest
import torch

import dvae
from dvae.lab.certify import certify_model
from dvae.latents import Bernoulli
from dvae.priors import Autoregressive, BoltzmannMachine, Prior, SpatialAutoregressive

LATENTS = {
    "Bernoulli": {"num_latents": 4},
    "Categorical": {"latent": "Categorical", "num_latents": 3, "num_classes": 3},
}


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


class HardPlaces(SpatialAutoregressive):
    """Sees the places before a relaxed one as if they were hard."""

    def forward(self):
        inner = super().forward()
        latent = inner.latent

        class HardFeatures:
            num_places, grid = latent.num_places, latent.grid

            def features(self, b):
                return latent.features(hard(b))

            def __call__(self, logits):
                return latent(logits)

        inner.latent = HardFeatures()
        return inner


def hard(b: torch.Tensor) -> torch.Tensor:
    return (b > 0.5).to(b.dtype)


def small_model(estimator: str, prior: Prior, latents: str = "Bernoulli", scale: float = 1.5, **options) -> dvae.VAE:
    torch.manual_seed(0)
    made = getattr(dvae.estimators, estimator)(**({"hidden": 10} if estimator == "RELAX" else {}))
    if isinstance(prior, SpatialAutoregressive):
        return on_grid(made, prior, latents)
    model = dvae.VAE(made, num_pixels=3, prior=prior, **LATENTS[latents], **options)
    with torch.no_grad():
        for name, parameter in model.named_theta():
            parameter.copy_((scale if name.startswith("prior.") else 1.0) * torch.randn(parameter.shape))
    return model


def on_grid(estimator: dvae.GradientEstimator, prior: Prior, latents: str) -> dvae.VAE:
    """A model of images of 2 x 6 pixels, with three places."""
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"stride": 2, "channels": 2, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    sizes = {**LATENTS[latents], "num_latents": 6 if latents == "Bernoulli" else 3}
    model = dvae.VAE(estimator, *networks, prior=prior, image_shape=(1, 2, 6), **sizes)
    with torch.no_grad():
        for name, parameter in model.named_theta():
            parameter.add_((0.7 if name.startswith("prior.") else 0.3) * torch.randn(parameter.shape))
    return model


def max_z(model: dvae.VAE, num_samples: int) -> float:
    x = torch.tensor([[1.0, 0.0, 1.0]]).repeat(1, model.num_pixels // 3)
    return certify_model(model, x, num_samples=num_samples, phi_steps=40).max_z


ESTIMATORS = ("REINFORCE", "LOO", "DisARM", "REBAR", "RELAX")
PRIORS = {
    "Autoregressive": lambda: Autoregressive(hidden=[8], activation="tanh"),
    "BoltzmannMachine": lambda: BoltzmannMachine(num_chains=5),
    "SpatialAutoregressive": lambda: SpatialAutoregressive(width=4, heads=2, blocks=1, hidden=[4]),
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
    "SpatialAutoregressive": lambda: HardPlaces(width=4, heads=2, blocks=1, hidden=[4]),
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("estimator", ["DisARM", "REBAR"])
def test_the_whole_step_is_unbiased_under_every_prior(prior, estimator):
    assert max_z(small_model(estimator, PRIORS[prior]()), 4000) < 4


def test_the_whole_step_is_unbiased_with_the_closed_kl_of_a_boltzmann_machine():
    assert max_z(small_model("REBAR", PRIORS["BoltzmannMachine"](), kl="analytic"), 4000) < 4


@pytest.mark.slow
@pytest.mark.parametrize(("prior", "latents", "estimator"), CASES)
def test_the_whole_step_is_unbiased_at_many_draws(prior, latents, estimator):
    assert max_z(small_model(estimator, PRIORS[prior](), latents), 200_000) < 4


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("estimator", ["REBAR", "RELAX"])
def test_a_prior_that_looks_at_the_hard_code_is_rejected(name, estimator):
    assert max_z(small_model(estimator, MUTANTS[name]()), 10_000) > 5


def test_every_prior_but_the_factorial_ones_has_its_certificate():
    assert set(PRIORS) == set(dvae.priors.__all__) - {"Factorial", "Prior", "SpatialFactorial"}
