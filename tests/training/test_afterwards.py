"""Priors that are fitted afterwards, from Python."""

import math

import pytest
import torch

import dvae
from dvae import InputError
from dvae.priors import Autoregressive, BoltzmannMachine, SpatialAutoregressive
from dvae.training.afterwards import fit_prior

QUIET = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}


def test_the_prior_learns_what_the_codes_have_in_common_and_the_model_stays(tiny_data):
    model = dvae.DiscreteVAE(num_pixels=16, num_latents=6)
    with torch.no_grad():  # all bits say which of the two kinds of image it is
        model.encoders[0].layers[0].weight.copy_(2 * torch.tensor([1.0, -1.0]).repeat(8).expand(6, 16))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted = fit_prior(model, Autoregressive([20]), tiny_data, max_steps=100, val_check_interval=20, lr=0.02, **QUIET)
    assert fitted.log_prob > -2.5  # of one kind or the other, log 2; of independent bits, 6 log 2
    assert fitted.step <= 100
    assert fitted.standard_error > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in fitted.model.parameters())
    again = fit_prior(model, Autoregressive([20]), tiny_data, max_steps=100, val_check_interval=20, lr=0.02, **QUIET)
    assert again.log_prob == fitted.log_prob


def test_fitting_ends_where_validation_no_longer_gets_better(tiny_data):
    model = dvae.DiscreteVAE(num_pixels=16, num_latents=6)
    fitted = fit_prior(model, Autoregressive([20]), tiny_data, max_steps=5000, val_check_interval=4, patience=2, lr=0.1, **QUIET)
    assert fitted.step < 1000


def test_codes_of_the_top_layer_are_fitted(tiny_data):
    model = dvae.DiscreteVAE(num_pixels=16, num_latents=6, num_layers=2)
    fitted = fit_prior(model, BoltzmannMachine(num_chains=10), tiny_data, max_steps=10, **QUIET)
    assert math.isfinite(fitted.log_prob)
    assert fitted.model.sample(3).shape == (3, 16)


def test_codes_on_a_grid_are_fitted():
    images = (torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"stride": 2, "channels": 2, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    model = dvae.DiscreteVAE(None, *networks, image_shape=(1, 4, 4), num_latents=8)
    data = dvae.data.ArrayData(images, batch_size=5)  # without a validation set
    fitted = fit_prior(model, SpatialAutoregressive(width=8, heads=2), data, max_steps=5, **QUIET)
    assert math.isnan(fitted.standard_error)
    assert fitted.model.at((1, 8, 8)).sample(3).shape == (3, 64)


def test_a_prior_that_the_model_cannot_have_is_refused(tiny_data):
    model = dvae.DiscreteVAE(num_pixels=16, num_latents=6, kl="analytic")
    with pytest.raises(InputError, match="kl='analytic' needs the KL in closed form, which the prior Autoregressive does not have"):
        fit_prior(model, Autoregressive(), tiny_data, **QUIET)
