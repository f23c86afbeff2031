"""Encoder and decoder as files for other programs say what the model says."""

import zipfile

import numpy as np
import pytest
import torch

import dvae
from dvae.errors import InputError
from dvae.lab.export import export

CLEAR = 1e-4
"""Logits nearer to 0 than this may round to either side."""


def spatial() -> dvae.VAE:
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"channels": 4, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    return dvae.VAE(dvae.estimators.LOO(), *networks, image_shape=(3, 8, 8), num_latents=8)


MODELS = {
    "layers": lambda: dvae.VAE(num_pixels=36, num_latents=5, num_layers=2),
    "classes": lambda: dvae.VAE(num_pixels=36, num_latents=5, latent="Categorical", num_classes=3),
    "gaussian": lambda: dvae.VAE(dvae.estimators.LAX(), num_pixels=35, num_latents=5, latent="Gaussian"),
    "orders": lambda: dvae.VAE(num_pixels=36, num_latents=5, latent="PlackettLuce"),
    "grid": spatial,
}


@pytest.mark.parametrize("name", MODELS)
def test_exported_programs_say_what_the_model_says(name, tmp_path):
    model = MODELS[name]()
    model.set_mean(torch.rand(model.num_pixels))
    paths = export(model, tmp_path, "torch-export")
    encoder, decoder = (torch.export.load(path).module() for path in paths)
    for count in (1, 7):  # batches of any size
        x = torch.rand(count, *(model.image_shape or (model.num_pixels,))).round()
        codes = encoder(x)
        assert torch.equal(codes, model.codes(x.flatten(1)))
        torch.testing.assert_close(decoder(codes).flatten(1), model.decode_codes(codes))
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            assert not [name for name in archive.namelist() if archive.read(name).startswith((b"\x80", b"PK"))], "pickled"


def test_onnx_files_say_what_the_model_says(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = dvae.VAE(dvae.estimators.LOO(), dvae.networks.MLP(784, 30, [40]), num_latents=30)
    data = dvae.data.BinarizedMNIST()
    model.set_mean(data.mean)
    encoder, decoder = (onnxruntime.InferenceSession(str(path)) for path in export(model, tmp_path))
    x = data.examples("test").first(300).float()
    images = x.reshape(-1, 1, 28, 28)
    (codes,) = encoder.run(["codes"], {"x": images.numpy()})
    clear = (model.encode(x).logits.abs() > CLEAR).numpy()
    assert codes.dtype == np.uint8
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(codes[clear], model.codes(x).numpy()[clear])
    (decoded,) = decoder.run(["x"], {"codes": codes})
    expected = model.decode_codes(torch.from_numpy(codes)).detach()
    np.testing.assert_allclose(decoded.reshape(300, -1), expected.numpy(), atol=1e-5)
    assert encoder.run(["codes"], {"x": images[:1].numpy()})[0].shape == (1, 30)


class Unwritable(dvae.Module):
    """An encoder that looks at values, which no program can hold."""

    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(6, 4)

    def forward(self, x):
        return self.map(x) if x.sum() > 0 else -self.map(x)


def test_what_cannot_be_exported_is_said_and_nothing_is_written(tmp_path):
    model = dvae.VAE(encoder=Unwritable(), num_pixels=6, num_latents=4)
    with pytest.raises(InputError, match="encoder cannot be written as torch-export: "):
        export(model, tmp_path, "torch-export")
    with pytest.raises(InputError, match="format must be 'onnx' or 'torch-export', got 'tflite'"):
        export(model, tmp_path, "tflite")
    assert list(tmp_path.iterdir()) == []
