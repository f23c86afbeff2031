"""Images of codes."""

import pytest
import torch

import dvae
from dvae.errors import InputError


@pytest.mark.parametrize(
    "latents",
    [
        {"num_layers": 2},
        {"latent": "Categorical", "num_classes": 3},
        {"latent": "Gaussian", "estimator": dvae.estimators.LAX()},
        {"latent": "PlackettLuce"},
    ],
    ids=["bits", "classes", "gaussian", "orders"],
)
def test_codes_are_decoded_as_the_most_probable_sample_is(latents):
    model = dvae.VAE(num_pixels=6, num_latents=5, **latents)
    x = torch.bernoulli(torch.full((7, 6), 0.5))
    expected = model.likelihood.mean(model.decode(model(x)))
    torch.testing.assert_close(model.decode_codes(model.codes(x)), expected)


def test_codes_on_a_grid_of_another_size_are_decoded_to_images_of_theirs():
    networks = [{"class_path": f"dvae.networks.Residual{name}"} for name in ("Encoder", "Decoder")]
    model = dvae.VAE(dvae.estimators.LOO(), *networks, image_shape=(1, 8, 8), num_latents=8)
    x = torch.rand(3, 1, 16, 16).round()
    images = model.decode_codes(model.codes(x))
    torch.testing.assert_close(images.reshape(3, 1, 16, 16), model.decode_ids(model.encode_ids(x)))


def test_what_is_no_code_is_refused():
    model = dvae.VAE(num_pixels=6, num_latents=5)
    with pytest.raises(InputError, match=r"codes must be \[B, 5\], one a latent, got shape \(2, 4\)"):
        model.decode_codes(torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"codes must be whole numbers from 0 to 1, got values from 0.0 to 3.0"):
        model.decode_codes(torch.tensor([[0.0, 1, 3, 0, 0]]))
    gaussian = dvae.VAE(dvae.estimators.LAX(), num_pixels=6, num_latents=2, latent="Gaussian")
    with pytest.raises(InputError, match="codes must be finite numbers"):
        gaussian.decode_codes(torch.tensor([[0.0, float("nan")]]))
    orders = dvae.VAE(num_pixels=6, num_latents=3, latent="PlackettLuce")
    with pytest.raises(InputError, match="codes must be ranks, each of 0 to 2 once"):
        orders.decode_codes(torch.tensor([[0, 0, 1]]))
