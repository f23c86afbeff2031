"""The certificate of the whole training step of models whose code is on a grid of 2 x 2 places."""

import pytest
import torch

import dvae
from dvae.lab.certify import certify_model

LATENTS = {
    "Bernoulli": {"num_latents": 8},
    "Categorical": {"latent": "Categorical", "num_latents": 4, "num_classes": 3},
}
X = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat_interleave(4).reshape(1, 16)


def spatial_model(estimator: str, latents: str) -> dvae.VAE:
    torch.manual_seed(0)
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"stride": 2, "channels": 2, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    options = {"hidden": 10} if estimator == "RELAX" else {}
    made = getattr(dvae.estimators, estimator)(**options)
    likelihood = dvae.likelihoods.DiscretizedLogistic(levels=4)
    model = dvae.VAE(made, *networks, likelihood=likelihood, image_shape=(1, 4, 4), **LATENTS[latents])
    with torch.no_grad():
        for parameter in model.theta():
            # Blocks and biases start at 0, where an error in what is behind them would not show.
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


PAIRS = [(name, latents) for name in ("REINFORCE", "LOO", "DisARM", "REBAR", "RELAX") for latents in LATENTS]
PAIRS.remove(("DisARM", "Categorical"))  # it is for bits


@pytest.mark.parametrize(("estimator", "latents"), [("LOO", "Categorical"), ("RELAX", "Bernoulli")])
def test_the_whole_step_is_unbiased_on_a_grid(estimator, latents):
    model = spatial_model(estimator, latents)
    assert model.grid == (2, 2)
    assert certify_model(model, X, num_samples=4000).max_z < 4


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "latents"), PAIRS)
def test_the_whole_step_is_unbiased_on_a_grid_at_many_draws(estimator, latents):
    assert certify_model(spatial_model(estimator, latents), X, num_samples=40_000).max_z < 4


def test_a_biased_estimator_is_rejected_on_a_grid():
    assert certify_model(spatial_model("StraightThrough", "Bernoulli"), X, num_samples=4000).max_z > 5
