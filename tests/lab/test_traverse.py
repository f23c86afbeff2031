"""What single latents do, and the way from code to code."""

import pytest
import torch

import dvae
from dvae.errors import InputError
from dvae.lab.traverse import changes, effects, interpolate, variations


def test_the_effect_of_a_bit_is_how_much_its_flip_changes_a_pixel():
    """By hand: two pixels, of which one bit moves the first and another moves nothing."""
    decoder = torch.nn.Linear(2, 2, bias=False)
    decoder.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    model = dvae.VAE(dvae.estimators.LOO(), decoder=decoder, num_pixels=2, num_latents=2)
    codes = torch.tensor([[0, 0], [1, 0], [1, 1]])
    change = torch.sigmoid(torch.tensor(1.0)) - torch.sigmoid(torch.tensor(-1.0))
    torch.testing.assert_close(changes(model, codes, 0), torch.stack([change, torch.zeros(())]))
    torch.testing.assert_close(effects(model, codes), torch.stack([change / 2**0.5, torch.zeros(())]))


def test_the_effect_of_classes_is_over_all_pairs_of_them():
    model = dvae.VAE(num_pixels=5, num_latents=2, latent="Categorical", num_classes=3)
    codes = torch.tensor([[0, 2], [1, 0]], dtype=torch.uint8)
    images = torch.stack([model.decode_codes(variations(model, codes, 1)[:, value]) for value in range(3)])
    pairs = torch.stack([(images[u] - images[v]).square().mean() for u, v in ((0, 1), (0, 2), (1, 2))])
    torch.testing.assert_close(effects(model, codes)[1], pairs.mean().sqrt())


def test_a_walk_changes_the_latents_that_differ_one_after_the_other():
    model = dvae.VAE(num_pixels=5, num_latents=9, num_layers=2)
    first, last = torch.zeros(2, 9, dtype=torch.uint8), torch.tensor([[1] * 9, [1, 0, 1, 0, 1, 0, 1, 0, 0]], dtype=torch.uint8)
    way = interpolate(model, first, last, 5)
    assert torch.equal(way[:, 0], first)
    assert torch.equal(way[:, -1], last)
    assert way[1].sum(-1).tolist() == [0, 1, 2, 3, 4]
    assert (way.diff(dim=1).int() >= 0).all()


def test_a_walk_between_means_is_a_straight_line():
    model = dvae.VAE(dvae.estimators.LAX(), num_pixels=5, num_latents=2, latent="Gaussian")
    way = interpolate(model, torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, -1.0]]), 3)
    torch.testing.assert_close(way, torch.tensor([[[0.0, 1.0], [0.5, 0.0], [1.0, -1.0]]]))


def test_what_has_no_values_to_set_is_refused():
    gaussian = dvae.VAE(dvae.estimators.LAX(), num_pixels=5, num_latents=2, latent="Gaussian")
    with pytest.raises(InputError, match="latents to set must be bits or classes, got Gaussian"):
        effects(gaussian, torch.zeros(1, 2))
    orders = dvae.VAE(num_pixels=5, num_latents=3, latent="PlackettLuce")
    ranks = torch.tensor([[0, 1, 2]])
    with pytest.raises(InputError, match="codes to walk between must be of bits, classes or real numbers, got PlackettLuce"):
        interpolate(orders, ranks, ranks)
    bits = dvae.VAE(num_pixels=5, num_latents=2)
    with pytest.raises(InputError, match="num_steps must be at least 2, got 1"):
        interpolate(bits, torch.zeros(1, 2), torch.zeros(1, 2), 1)
    with pytest.raises(InputError, match="latent must be from 0 to 1, got 2"):
        variations(bits, torch.zeros(1, 2), 2)
