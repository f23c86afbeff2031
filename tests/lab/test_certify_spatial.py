"""The certificate of the whole training step of models whose code is on a grid of 2 x 2 places."""

import pytest
import torch

import dvae
from dvae.lab.certify import certify_model
from dvae.priors import SpatialAutoregressive

LATENTS = {
    "Bernoulli": {"num_latents": 8},
    "Categorical": {"latent": "Categorical", "num_latents": 4, "num_classes": 3},
}
X = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat_interleave(4).reshape(1, 16)


def spatial_model(estimator: str, latents: str, prior: dvae.priors.Prior | None = None) -> dvae.VAE:
    torch.manual_seed(0)
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"stride": 2, "channels": 2, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    options = {"hidden": 10} if estimator == "RELAX" else {}
    made = getattr(dvae.estimators, estimator)(**options)
    likelihood = dvae.likelihoods.DiscretizedLogistic(levels=4)
    model = dvae.VAE(made, *networks, prior=prior, likelihood=likelihood, image_shape=(1, 4, 4), **LATENTS[latents])
    with torch.no_grad():
        for name, parameter in model.named_theta():
            # Blocks and biases start at 0, where an error in what is behind them would not show.
            parameter.add_((0.7 if name.startswith("prior.") else 0.3) * torch.randn(parameter.shape))
    return model


PAIRS = [(name, latents) for name in ("REINFORCE", "LOO", "DisARM", "REBAR", "RELAX") for latents in LATENTS]
PAIRS.remove(("DisARM", "Categorical"))  # it is for bits


@pytest.mark.parametrize(("estimator", "latents"), [("LOO", "Categorical"), ("RELAX", "Bernoulli")])
def test_the_whole_step_is_unbiased_on_a_grid(estimator, latents):
    model = spatial_model(estimator, latents)
    assert model.grid == (2, 2)
    assert certify_model(model, X, num_samples=4000, phi_steps=40).max_z < 4


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["factorial", "autoregressive"])
@pytest.mark.parametrize(("estimator", "latents"), PAIRS)
def test_the_whole_step_is_unbiased_on_a_grid_at_many_draws(estimator, latents, prior):
    made = SpatialAutoregressive(width=4, heads=2, blocks=1, hidden=[4]) if prior == "autoregressive" else None
    assert certify_model(spatial_model(estimator, latents, made), X, num_samples=200_000).max_z < 4


class NoiseOfOnePlace(dvae.VAE):
    """Draws the same noise at all places."""

    def noise(self, batch_size, **options):
        first, *others = super().noise(batch_size, **options)
        places = first.unflatten(-1, (self.latent.num_places, -1))
        return [places[..., :1, :].expand_as(places).flatten(-2), *others]


@pytest.mark.parametrize("estimator", ["LOO", "REBAR"])
def test_noise_that_places_share_is_rejected(estimator):
    model = spatial_model(estimator, "Bernoulli")
    model.__class__ = NoiseOfOnePlace
    assert certify_model(model, X, num_samples=4000, phi_steps=40).max_z > 5


def test_a_biased_estimator_is_rejected_on_a_grid():
    assert certify_model(spatial_model("StraightThrough", "Bernoulli"), X, num_samples=4000, phi_steps=40).max_z > 5
