"""The autoregressive prior of codes on a grid: causal, for grids of every size, and part of a spatial model."""

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import InputError
from dvae.latents import Bernoulli, Spec
from dvae.priors import SpatialAutoregressive
from dvae.training.checkpoints import load_model


@pytest.fixture
def prior() -> SpatialAutoregressive:
    torch.manual_seed(0)
    prior = SpatialAutoregressive(width=8, heads=2)
    prior.build(Spec(Bernoulli, 8, grid=(2, 2)))
    prior.double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return prior


@pytest.mark.parametrize("grid", [(1, 2), (2, 3), (5, 1)])
def test_probabilities_sum_to_one_on_every_grid(prior, grid):
    prior.grid = grid
    number = 2 * grid[0] * grid[1]
    states = Bernoulli(torch.zeros(number, dtype=torch.float64)).enumerate()
    probs = prior().log_prob(states).exp()
    torch.testing.assert_close(probs.sum(), torch.ones((), dtype=torch.float64))
    samples = prior().sample(20_000, generator=torch.Generator().manual_seed(0))
    mean = probs @ states
    z = (samples.mean(0) - mean) / (mean * (1 - mean) / 20_000).sqrt()
    assert z.abs().max() < 4


def test_a_place_depends_on_those_before_it(prior):
    b = torch.zeros(3, 8, dtype=torch.float64)
    b[1, 0] = 1  # at the first place
    b[2, 6] = 1  # at the last
    first, early, late = prior().log_prob(b)
    assert abs(first - early) > 1e-3
    assert abs(first - late) > 1e-3


def spatial_model(prior) -> dvae.DiscreteVAE:
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"stride": 2, "channels": 2, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    return dvae.DiscreteVAE(dvae.estimators.LOO(), *networks, prior=prior, image_shape=(1, 4, 4), num_latents=8, seed=0)


def test_one_model_is_for_images_of_every_size():
    model = spatial_model(SpatialAutoregressive(width=8, heads=2))
    assert model.at((1, 6, 8)).sample(3).shape == (3, 48)
    assert model.elbo(torch.zeros(2, 1, 6, 8)).shape == (2,)
    assert model.sample(3).shape == (3, 16)


def test_it_is_trained_with_the_model_and_comes_back_from_a_checkpoint(tmp_path):
    images = (torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    model = spatial_model(SpatialAutoregressive(width=8, heads=2))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=5, accelerator="cpu", **quiet)
    trainer.fit(model, dvae.data.ArrayData(images, batch_size=5))
    assert model.prior.within.direct.weight.abs().max() > 0
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded, _ = load_model(tmp_path / "model.ckpt")
    b = torch.ones(8)
    assert torch.equal(loaded.prior().log_prob(b), model.prior().log_prob(b))


def test_what_it_is_not_for_is_refused():
    with pytest.raises(InputError, match="SpatialAutoregressive needs latents on a grid"):
        dvae.VAE(prior=SpatialAutoregressive())
    with pytest.raises(InputError, match="width must be a multiple of heads, 3, got 8"):
        SpatialAutoregressive(width=8, heads=3)
    with pytest.raises(InputError, match="blocks must be at least 1, got 0"):
        SpatialAutoregressive(blocks=0)
    model = spatial_model(dvae.priors.Autoregressive())
    with pytest.raises(InputError, match="the model is for one size alone"):
        model.elbo(torch.zeros(2, 1, 6, 8))
