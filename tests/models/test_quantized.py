"""A quantised code: whole numbers in range, a gradient for the encoder, images of every size, and no bound."""

import sys

import pytest
import torch

import dvae
from dvae import InputError
from dvae.models import BSQ, FSQ, LFQ, VQ, Quantized

pytest.importorskip("vector_quantize_pytorch")

KINDS = [lambda: FSQ([4, 4]), lambda: FSQ([2, 3]), lambda: LFQ(4), lambda: BSQ(4), lambda: VQ(16, 4)]


def networks(channels: int = 4) -> list[dict]:
    given = {"channels": channels, "blocks": 1}
    return [{"class_path": f"dvae.networks.Residual{name}", "init_args": dict(given)} for name in ("Encoder", "Decoder")]


def model_of(quantizer, **options) -> Quantized:
    torch.manual_seed(0)
    return Quantized(quantizer, *networks(), image_shape=(1, 8, 8), num_latents=4, **options)


@pytest.fixture
def x():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()


@pytest.mark.parametrize("make", KINDS)
def test_a_token_is_one_of_the_quantisers_values_and_decodes_to_the_reconstruction(make, x):
    model = model_of(make())
    model.train()
    model.terms(model.check_input(x))  # a codebook starts at the first batch
    model.eval()
    ids = model.encode_ids(x)
    assert ids.shape == (6, 2, 2)
    assert ids.min() >= 0
    assert ids.max() < model.quantizer.num_values == model.num_ids
    torch.testing.assert_close(model.decode_ids(ids).flatten(1), model.reconstruct(x))


@pytest.mark.parametrize("make", KINDS)
def test_the_gradient_of_the_loss_reaches_the_encoder(make, x):
    model = model_of(make()).train()
    terms = model.terms(model.check_input(x))
    (terms.loss - terms.reconstruction.mean()).backward()
    assert all(parameter.grad is not None for parameter in model.encoders.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.encoders.parameters())


def test_one_model_is_for_images_of_every_size(x):
    model = model_of(FSQ([4, 4])).eval()
    larger = x.repeat(1, 1, 2, 3)
    ids = model.encode_ids(larger)
    assert ids.shape == (6, 4, 6)
    assert model.reconstruct(larger).shape == (6, 16 * 24)
    assert model.codes(larger).shape == (6, 24)


def test_without_a_grid_vectors_are_parts_of_the_encoders_outputs():
    model = Quantized(LFQ(3), num_pixels=10, num_latents=5)
    assert model.encoders[0](torch.zeros(2, 10)).shape == (2, 15)
    assert model.codes(torch.zeros(2, 10)).shape == (2, 5)


@pytest.mark.parametrize("name", ["elbo", "sample", "estimator", "prior"])
def test_what_a_quantised_code_has_not_is_said_in_one_sentence(name):
    model = model_of(FSQ())
    assert not hasattr(model, name)
    with pytest.raises(InputError, match=f"has no {name}: its code has no distribution"):
        getattr(model, name)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FSQ([]), "levels must be numbers of at least 2"),
        (lambda: FSQ([1, 4]), "levels must be numbers of at least 2"),
        (lambda: LFQ(0), "bits must be at least 1, got 0"),
        (lambda: LFQ(17), "bits must be at most 16"),
        (lambda: LFQ(4, entropy_weight=-1.0), "entropy_weight must be a finite number of at least 0, got -1.0"),
        (lambda: VQ(16, 4, decay=1.0), r"decay must be in \[0, 1\), got 1.0"),
        (lambda: model_of(FSQ(), likelihood=3), "likelihood must be a Likelihood"),
        (lambda: Quantized(FSQ(), *networks(), image_shape=(1, 8, 8), num_latents=6), "must be a multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(InputError, match=r"pip install 'discrete-vae\[quantizers\]'"):
        dvae.models.FSQ()
