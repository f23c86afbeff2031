"""One model for images of every size, and its codes as integers."""

import itertools

import pytest
import torch

import dvae
from dvae import VAE, InputError
from dvae.estimators import LAX, LOO, RELAX
from dvae.networks import SpatialSurrogate, SurrogateNetwork

BITS = {"num_latents": 12}
CLASSES = {"latent": "Categorical", "num_latents": 8, "num_classes": 3}


def spatial(*, encoder=None, decoder=None, image_shape=(2, 8, 8), **options) -> VAE:
    """A code of 2 x 2 places, with weights at which each part has a say."""
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"channels": 4, "blocks": 1, **(own or {})}}
        for name, own in (("Encoder", encoder), ("Decoder", decoder))
    ]
    torch.manual_seed(0)
    model = VAE(options.pop("estimator", LOO()), *networks, image_shape=image_shape, **(BITS | options))
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.normal_()
    return model


def images(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3).float()


@pytest.mark.parametrize("latents", [BITS, CLASSES], ids=["bits", "classes"])
def test_one_model_is_for_images_of_every_size(latents):
    model = spatial(**latents)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for height, width in ((8, 8), (16, 16), (4, 20)):
        x, places = images(3, 2, height, width), height * width // 16
        size = 2 * height * width
        q = model.encode(x)
        assert q.logits.shape[:2] == (3, places * model.latent.num_per_place)
        assert model.reconstruct(x).shape == (3, size)
        assert model.elbo(x, num_samples=2).shape == (3,)
        assert model.importance_weighted_bound(x, num_samples=2).shape == (3,)
        assert model.codes(x).shape == (3, places * model.latent.num_per_place)
        assert torch.equal(model(x), q.mode())
        assert model.at((2, height, width)).sample(3).shape == (3, size)
        assert model.at((2, height, width)).decode(q.mode()).shape == (3, size)
    assert model.decode(model.encode(images(3, 2, 16, 16)).mode()).shape == (3, 512)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (model.image_shape, model.num_pixels, model.grid) == ((2, 8, 8), 128, (2, 2))


def test_images_of_the_models_own_size_may_be_flat_or_not():
    model, x = spatial(), images(3, 2, 8, 8)
    torch.testing.assert_close(model.encode(x).logits, model.encode(x.flatten(1)).logits, rtol=0, atol=0)


def test_as_many_pixels_of_other_proportions_are_another_grid():
    model, x = spatial(), images(3, 2, 4, 16)
    assert not torch.allclose(model.encode(x).logits, model.encode(x.flatten(1)).logits)


def test_a_copy_for_another_size_shares_the_parameters():
    model = spatial()
    larger = model.at((2, 16, 16))
    assert [id(parameter) for parameter in larger.parameters()] == [id(parameter) for parameter in model.parameters()]
    larger.elbo(images(2, 2, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.encoders.parameters())


def test_the_prior_of_another_size_has_the_same_logits_at_every_place():
    model = spatial()
    prior, b = model.at((2, 8, 16)).prior(), model.encode(images(1, 2, 8, 16)).mode()
    logits = model.prior.logits.detach()
    expected = (b.reshape(-1, 3) * logits - torch.nn.functional.softplus(logits)).sum()
    torch.testing.assert_close(prior.log_prob(b), expected[None])


def test_the_mean_of_the_data_is_one_for_each_channel():
    model = spatial(likelihood=dvae.likelihoods.Normal())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, 8, 8, generator=generator) * torch.linspace(1, 2, 8) + torch.tensor([1.0, 5.0])[:, None, None]
    model.set_mean(x.flatten(1).mean(0), x.flatten(1).std(0))
    expected = x.mean((0, 2, 3)).repeat_interleave(64)
    torch.testing.assert_close(model.mean, expected)
    torch.testing.assert_close(model.likelihood.unit, x.std((0, 2, 3)).repeat_interleave(64), rtol=1e-3, atol=0)
    larger = model.at((2, 16, 16))
    torch.testing.assert_close(larger.mean, x.mean((0, 2, 3)).repeat_interleave(256))
    assert larger.output_bias.shape == (1024,)
    assert larger.likelihood.center.shape == (512,)
    assert model.likelihood.center.shape == (128,)
    assert model.elbo(torch.randn(2, 2, 16, 16)).isfinite().all()


def test_outputs_start_at_each_channels_mean_at_every_size():
    model = spatial(image_shape=(3, 8, 8), likelihood=dvae.likelihoods.DiscretizedLogistic())
    with torch.no_grad():
        model.decoders[0].layers[-1].weight.zero_()
    means = torch.tensor([50.0, 100.0, 200.0])
    model.set_mean(means.repeat_interleave(64))
    reconstructed = model.reconstruct(torch.zeros(1, 3, 12, 12)).reshape(3, 144)
    torch.testing.assert_close(reconstructed, means[:, None].expand(-1, 144), rtol=0, atol=0.5)


def test_relax_looks_at_the_grid_by_default():
    for model in (spatial(estimator=RELAX(hidden=7, depth=1)), spatial(estimator=LAX(), latent="Gaussian")):
        assert isinstance(model.estimator.network, SpatialSurrogate)
        assert model.at((2, 16, 16)).estimator.network.grid == (4, 4)
    assert spatial(estimator=RELAX(hidden=7)).estimator.network.layers[-1].in_features == 7
    config = {
        "class_path": "dvae.networks.SpatialSurrogate",
        "init_args": {"num_latents": 12, "image_shape": [2, 8, 8], "hidden": 9},
    }
    assert spatial(estimator=RELAX(network=config)).estimator.network.layers[-1].in_features == 9
    for name, expected in (("SpatialSurrogate", SpatialSurrogate), ("SurrogateNetwork", SurrogateNetwork)):
        config = {"class_path": f"dvae.networks.{name}", "init_args": {"hidden": 9}}
        assert isinstance(spatial(estimator=RELAX(network=config)).estimator.network, expected)
    own = SurrogateNetwork(12, 128)
    assert spatial(estimator=RELAX(network=own)).estimator.network is own
    model = spatial()
    model.estimator = RELAX()
    assert isinstance(model.estimator.network, SpatialSurrogate)


def test_a_prior_may_have_logits_for_each_place_of_one_size():
    model = spatial(prior=dvae.priors.Factorial())
    assert model.elbo(images(2, 2, 8, 8)).shape == (2,)
    with pytest.raises(
        InputError, match=r"the model is for one size alone, .* ResidualEncoder, ResidualDecoder and SpatialFactorial"
    ):
        model.elbo(images(2, 2, 16, 16))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 2, 10, 8), (2, 2, 0, 8)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(InputError, match="images must have 2 channels and sides that are multiples of 4"):
        spatial().encode(torch.zeros(shape))


def test_flat_images_of_another_size_are_told_how_to_be_given():
    with pytest.raises(InputError, match=r"x must be a tensor of 128 values .* got \(3, 512\): .* flat ones to model.at"):
        spatial().elbo(images(3, 512))
    assert spatial().at((2, 16, 16)).elbo(images(3, 512)).shape == (3,)


def test_a_model_of_several_layers_is_for_one_size():
    networks = [{"class_path": f"dvae.networks.Residual{name}", "init_args": {"channels": 4}} for name in ("Encoder", "Decoder")]
    linear = {"class_path": "dvae.networks.Linear"}
    model = VAE(LOO(), *([network, linear] for network in networks), image_shape=(2, 8, 8), num_latents=12, num_layers=2)
    assert model.grid is None
    assert model.elbo(images(3, 2, 8, 8)).shape == (3,)
    with pytest.raises(InputError, match="x must be 128 values per example, for the model is for one size alone"):
        model.at((2, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"stride": 2}, "num_latents": 16}, r"encoder and decoder must be of one grid, got \(4, 4\) and \(2, 2\)"),
        ({"num_latents": 10}, "num_latents, must be a multiple of 4, .* 2 x 2 places, got 10: take 8 or 12"),
        ({**CLASSES, "num_latents": 6, "num_classes": 2}, "num_latents must be a multiple of 4, .* 2 x 2 places, got 6"),
    ],
)
def test_a_model_that_fits_no_grid_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        spatial(**options)


def test_codes_of_another_grid_need_the_size():
    with pytest.raises(InputError, match=r"b must have 12 latents, 3 at each of 2 x 2 places, .* got 24: else take model.at"):
        spatial().decode(torch.zeros(5, 24))


def test_a_prior_on_a_grid_is_for_latents_on_a_grid():
    with pytest.raises(InputError, match="SpatialFactorial needs latents on a grid"):
        VAE(LOO(), num_pixels=6, num_latents=4, prior=dvae.priors.SpatialFactorial())


# Tokens ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latents", [BITS, CLASSES], ids=["bits", "classes"])
def test_ids_decode_to_what_their_codes_decode_to(latents):
    model, x = spatial(**latents), images(20, 2, 12, 20)
    ids = model.encode_ids(x)
    assert ids.shape == (20, 3, 5)
    assert ids.dtype == torch.int64
    assert 0 <= ids.min() <= ids.max() < model.num_ids
    larger = model.at((2, 12, 20))
    expected = larger.likelihood.mean(larger.decode(larger.encode(x).mode())).reshape(20, 2, 12, 20)
    torch.testing.assert_close(model.decode_ids(ids), expected)


def test_ids_count_all_codes_of_a_place_with_the_first_latent_weighing_most():
    model = spatial(latent="Categorical", num_latents=8, num_classes=3)
    assert model.num_ids == 9
    for number, (first, second) in enumerate(itertools.product(range(3), repeat=2)):
        code = torch.tensor([first, second] * 4)
        b = model.latent.from_code(code)[None]
        expected = model.likelihood.mean(model.decode(b)).reshape(1, 2, 8, 8)
        torch.testing.assert_close(model.decode_ids(torch.full((1, 2, 2), number)), expected)


def test_sixty_three_bits_at_a_place_are_an_id_and_sixty_four_are_not():
    model, x = spatial(num_latents=4 * 63), images(2, 2, 8, 8)
    ids = model.encode_ids(x)
    bits = ids[..., None] >> torch.arange(62, -1, -1) & 1
    assert torch.equal(bits.flatten(1), model.codes(x).long())
    with pytest.raises(InputError, match="at most 63 bits at a place, got 64 latents of 2 values"):
        spatial(num_latents=4 * 64).encode_ids(x)


def test_what_has_no_ids_is_refused():
    with pytest.raises(InputError, match="tokens are of bits or classes on a grid, got a model of no grid"):
        VAE(LOO(), num_pixels=4, num_latents=2).encode_ids(torch.zeros(1, 4))
    with pytest.raises(InputError, match="tokens are of bits or classes on a grid, got a model of one grid of Gaussian latents"):
        spatial(latent="Gaussian", estimator=LAX()).encode_ids(images(1, 2, 8, 8))
    with pytest.raises(InputError, match="ids must be from 0 to 7, got 0 to 8"):
        spatial().decode_ids(torch.tensor([[[0, 8]]]))
    with pytest.raises(InputError, match=r"ids must be whole numbers \[B, height, width\], got torch.int64 of shape \(1, 4\)"):
        spatial().decode_ids(torch.zeros(1, 4, dtype=torch.int64))
