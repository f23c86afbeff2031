"""Encoders, decoders, the surrogate network, and what objects record of their arguments."""

import copy

import pytest
import torch
from torch import nn

import dvae
from dvae import InputError
from dvae.config import class_paths, import_class, instantiate
from dvae.estimators import RELAX
from dvae.networks import MLP, ConvDecoder, ConvEncoder, Linear, SurrogateNetwork, dense
from dvae.networks.dense import Dense
from dvae.priors import Factorial


def test_linear_is_one_affine_map_with_glorot_weights_and_zero_biases():
    linear = Linear(300, 200)
    (layer,) = linear.layers
    bound = (6 / 500) ** 0.5
    assert layer.bias.abs().max() == 0
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert linear(torch.zeros(2, 3, 300)).shape == (2, 3, 200)


def test_mlp_is_tanh_tanh_linear_by_default():
    assert [type(layer) for layer in MLP(7, 5).layers] == [Dense, nn.Tanh, Dense, nn.Tanh, Dense]
    assert issubclass(Dense, nn.Linear)
    assert MLP(7, 5, [3], output_scale=0.0)(torch.ones(2, 7)).abs().max() == 0


def test_convolutions_keep_leading_dimensions():
    encoder, decoder, x = ConvEncoder(10, (1, 8, 8), 4), ConvDecoder(10, (1, 8, 8), 4), torch.rand(2, 3, 64)
    codes = encoder(x)
    assert codes.shape == (2, 3, 10)
    torch.testing.assert_close(codes[1], encoder(x[1]))
    assert decoder(codes).shape == x.shape
    torch.testing.assert_close(decoder(codes)[1], decoder(codes[1]))


def test_surrogate_network_is_a_dense_network_on_the_concatenation():
    """The first layer's two blocks must act as one Linear on concat(context, z)."""
    network = SurrogateNetwork(3, 4, hidden=5, depth=2)
    z, context = torch.randn(2, 6, 3), torch.randn(6, 4)
    first = dense(7, 5)
    with torch.no_grad():
        first.weight.copy_(torch.cat([network.context_weight, network.latent_weight], dim=1))
        first.bias.copy_(network.bias)
    plain = nn.Sequential(first, *network.layers)
    torch.testing.assert_close(network(z, context), plain(torch.cat([context.expand(2, -1, -1), z], -1)).squeeze(-1))
    assert sum(isinstance(layer, nn.ReLU) for layer in SurrogateNetwork(3, depth=4).layers) == 4


@pytest.mark.parametrize("activation", ["silu", "relu", "tanh", "elu", "leaky_relu"])
@pytest.mark.parametrize(
    "make", [lambda **k: ConvEncoder(100, (1, 16, 16), 24, **k), lambda **k: ConvDecoder(100, (1, 16, 16), 24, **k)]
)
def test_signals_neither_vanish_nor_explode_in_new_convolutional_networks(make, activation):
    """From inputs of second moment 1, in the middle of an image; at its border the sums are over fewer inputs."""
    torch.manual_seed(0)
    network = make(activation=activation)
    size = 256 if isinstance(network, ConvEncoder) else 100
    x = torch.randn(200, size).sign().reshape(200, *((1, 16, 16) if size == 256 else (100,)))
    for layer in network.layers:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            assert 0.3 < x[..., 1:-1, 1:-1].square().mean() < 4
            assert layer.bias.abs().max() == 0


def test_a_decoder_gives_all_pixels_of_one_number_before_those_of_the_next():
    decoder = ConvDecoder(5, (2, 8, 8), 4, outputs_per_pixel=3)
    last = decoder.layers[-2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.arange(6.0))
    values = decoder(torch.randn(7, 5)).reshape(7, 3, 2, 64)
    expected = torch.arange(6.0).reshape(3, 2, 1).expand(7, 3, 2, 64)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(0, 3), r"layer sizes must be at least 1, got \[0, 200, 200, 3\]"),
        (lambda: MLP(2, 3, activation="sin"), "activation must be one of .*, got 'sin'"),
        (lambda: ConvEncoder(5, (1, 8, 8), channels=0), "channels must be at least 1, got 0"),
        (lambda: ConvDecoder(5, (1, 8, 8), outputs_per_pixel=0), "outputs_per_pixel must be at least 1, got 0"),
        (lambda: ConvDecoder(5, (1, 8, 8), activation="sin"), "activation must be one of .*, got 'sin'"),
        (lambda: ConvEncoder(5, (1, 30, 30)), r"image_shape must be .* divisible by 4, got \(1, 30, 30\)"),
        (lambda: ConvEncoder(5), r"image_shape must be given as \(channels, height, width\), got None"),
        (lambda: MLP(3), "in_features and out_features must be given, got 3 and None"),
        (lambda: Factorial(0), "num_latents must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


# Configs --------------------------------------------------------------------------------------------------------------------


def test_config_rebuilds_the_object_also_through_a_copy_and_a_subclass():
    class Wide(RELAX):
        def __init__(self, factor, **kwargs):
            super().__init__(hidden=100 * factor, **kwargs)

    for estimator in (RELAX(0.3, hidden=7), copy.deepcopy(RELAX(0.3, hidden=7))):
        assert estimator.config == {"class_path": "dvae.estimators.RELAX", "init_args": {"temperature": 0.3, "hidden": 7}}
        assert instantiate(estimator.config, RELAX, "estimator").hidden == 7
    assert Wide(2, depth=4).config["init_args"] == {"factor": 2, "depth": 4}


def test_nested_modules_are_recorded_as_their_configs():
    model = dvae.DiscreteVAE(encoder=MLP(4, 2), decoder=[nn.Linear(2, 4)], num_pixels=4, num_latents=2, estimator=RELAX())
    arguments = model.config["init_args"]
    assert arguments["encoder"] == {"class_path": "dvae.networks.MLP", "init_args": {"in_features": 4, "out_features": 2}}
    assert arguments["decoder"] == [{"given_as": "torch.nn.modules.linear.Linear"}]
    assert sorted(class_paths(arguments)) == ["dvae.estimators.RELAX", "dvae.networks.MLP"]


def test_importing_what_is_no_class_is_refused():
    for path in ("os.system", "dvae.nowhere.Class", "MLP", "", "dvae.networks."):
        with pytest.raises(InputError, match="encoder: "):
            import_class(path, nn.Module, "encoder")
    with pytest.raises(InputError, match=r"encoder has unknown keys \['args'\]"):
        instantiate({"class_path": "dvae.networks.MLP", "args": {}}, nn.Module, "encoder")
    with pytest.raises(InputError, match=r"encoder.init_args must be a mapping"):
        instantiate({"class_path": "dvae.networks.MLP", "init_args": [1]}, nn.Module, "encoder")
