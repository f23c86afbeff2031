"""Fully convolutional networks: codes on a grid, one set of weights for every size."""

import pytest
import torch

from dvae import InputError
from dvae.networks import ResidualDecoder, ResidualEncoder, SpatialSurrogate


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_logits_are_at_every_place_and_leading_dimensions_are_kept(stride):
    places = (16 // stride) * (32 // stride)
    encoder = ResidualEncoder(3 * places, (2, 16, 32), stride, channels=4)
    decoder = ResidualDecoder(3 * places, (2, 16, 32), stride, channels=4, outputs_per_pixel=2)
    x = torch.rand(2, 3, 2 * 16 * 32)
    codes = encoder(x)
    assert codes.shape == (2, 3, 3 * places)
    torch.testing.assert_close(codes[1], encoder(x[1]))
    assert decoder(codes).shape == (2, 3, 2 * 2 * 16 * 32)
    torch.testing.assert_close(decoder(codes)[1], decoder(codes[1]))


def test_a_place_of_the_code_is_about_its_own_pixels():
    """Flat logits are place by place: a pixel changes those near it, and a place's code the pixels near it."""
    encoder = ResidualEncoder(2 * 64, (1, 32, 32), channels=4, blocks=1)
    x = torch.zeros(1, 1, 32, 32, requires_grad=True)
    logits = encoder(x.flatten(1)).unflatten(-1, (8, 8, 2))
    # Normalisation over the image apart, which is the same everywhere, far pixels have no say.
    gradient = torch.autograd.grad(logits[0, 1, 6].sum(), x)[0][0, 0].abs()
    assert gradient.argmax() // 32 // 4 in (0, 1, 2)
    assert gradient.argmax() % 32 // 4 in (5, 6, 7)
    decoder = ResidualDecoder(2 * 64, (1, 32, 32), channels=4, blocks=1)
    b = torch.randn(1, 128, requires_grad=True)
    pixel = decoder(b).reshape(32, 32)[6, 26]
    assert torch.autograd.grad(pixel, b)[0].reshape(8, 8, 2).abs().sum(-1).argmax() in (8 + 5, 8 + 6, 8 + 7, 6, 16 + 6)


def test_examples_do_not_see_each_other():
    encoder = ResidualEncoder(64, (3, 16, 16), channels=8)
    x = torch.randn(5, 768)
    torch.testing.assert_close(encoder(x)[2:3], encoder(x[2:3]))


def test_the_same_weights_compute_on_any_grid():
    encoder, decoder = ResidualEncoder(64, (3, 16, 16), channels=8), ResidualDecoder(64, (3, 16, 16), channels=8)
    surrogate = SpatialSurrogate(64, (3, 16, 16), hidden=5)
    for module in (encoder, decoder, surrogate):
        module.grid = (2, 6)
    x, b = torch.randn(2, 3 * 8 * 24), torch.randn(2, 12 * 4)
    assert encoder(x).shape == b.shape
    assert decoder(b).shape == x.shape
    assert surrogate(b, x).shape == (2,)


@pytest.mark.parametrize("stride", [4, 8])
def test_signals_keep_their_size_in_new_residual_networks(stride):
    torch.manual_seed(0)
    encoder, decoder = ResidualEncoder(512, (3, 64, 64), stride), ResidualDecoder(512, (3, 64, 64), stride)
    for scale in (0.1, 1.0):  # whatever the contrast of the images
        x = scale * torch.randn(10, 3 * 64 * 64)
        logits = encoder(x)
        assert 1.5 < logits.std() < 2.5
    assert 0.3 < decoder(logits.sign()).std() < 2


def test_surrogate_takes_samples_with_one_context_for_all():
    surrogate = SpatialSurrogate(12, (1, 8, 8), hidden=6, depth=3)
    z, context = torch.randn(4, 5, 12), torch.randn(5, 64)
    values = surrogate(z, context)
    assert values.shape == (4, 5)
    torch.testing.assert_close(values[2], surrogate(z[2], context))
    assert not torch.allclose(values, surrogate(z))


def test_surrogate_adds_up_over_places():
    """What happens at one end of the grid has no influence on the part of the other."""
    surrogate = SpatialSurrogate(2 * 8 * 2, (1, 8, 32), hidden=6)

    def value(left: float, right: float) -> torch.Tensor:
        z, context = torch.zeros(2, 8, 2), torch.zeros(1, 8, 32)
        z[:, 0], z[:, -1], context[..., :4], context[..., -4:] = left, right, -left, -right
        return surrogate(z.reshape(1, -1), context.reshape(1, -1))

    torch.testing.assert_close(value(1, 2) + value(0, 0), value(1, 0) + value(0, 2))
    assert not torch.allclose(value(1, 0), value(0, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualEncoder(64), r"image_shape must be given as \(channels, height, width\), got None"),
        (lambda: ResidualEncoder(64, (3, 30, 32)), r"image_shape must be .* divisible by the stride 4, got \(3, 30, 32\)"),
        (lambda: ResidualEncoder(64, (3, 32, 32), stride=6), "stride must be a power of two, 2, 4 or 8, got 6"),
        (lambda: ResidualEncoder(64, (3, 32, 32), channels=0), "channels must be at least 1, got 0"),
        (lambda: ResidualDecoder(64, (3, 32, 32), outputs_per_pixel=0), "outputs_per_pixel must be at least 1, got 0"),
        (
            lambda: ResidualEncoder(200, (3, 32, 32)),
            "num_latents, must be a multiple of 64, .* 8 x 8 places, got 200: take 192 or 256",
        ),
        (lambda: ResidualDecoder(30, (3, 32, 32)), "in_features, .* must be a multiple of 64, .* got 30: take 64"),
        (lambda: ResidualEncoder(None, (3, 32, 32)), "out_features must be given, got None"),
        (lambda: SpatialSurrogate(64, (3, 32, 32), hidden=0), "hidden must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_a_grid_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
