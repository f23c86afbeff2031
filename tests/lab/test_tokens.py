"""Tokens of a data set: the model's, in order, and the same where a run was killed and goes on."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dvae
from dvae import InputError
from dvae.data import ArrayData
from dvae.estimators import LOO
from dvae.lab.tokens import tokenize


@pytest.fixture
def model() -> dvae.VAE:
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"channels": 4, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    return dvae.VAE(LOO(), *networks, image_shape=(1, 8, 8), num_latents=12).eval()


@pytest.fixture
def data() -> ArrayData:
    images = (torch.rand(25, 1, 12, 16, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    return ArrayData(images, labels=np.arange(25) % 3)


def expected(model, data):
    return model.encode_ids(data.split("train").float().reshape(-1, 1, 12, 16)).numpy()


def test_tokens_are_the_models_in_the_datas_order(model, data, tmp_path):
    seen = []
    written = tokenize(model, data, tmp_path / "t.npz", batch_size=10, progress=lambda *args: seen.append(args))
    assert written == (tmp_path / "t.npz", (25, 3, 4), 8, 0)
    assert seen == [(10, 25), (20, 25), (25, 25)]
    with np.load(tmp_path / "t.npz") as file:
        assert file["tokens"].dtype == np.uint8
        np.testing.assert_array_equal(file["tokens"], expected(model, data))
        np.testing.assert_array_equal(file["labels"], np.arange(25) % 3)
        assert file["num_ids"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


class Killed(BaseException):
    """What no part of the package catches."""


def killed_after(number: int):
    def progress(done, total):
        if done >= number:
            raise Killed

    return progress


@pytest.mark.parametrize("cut", [0, 7])
@pytest.mark.parametrize("stream", [False, True], ids=["stored", "streamed"])
def test_a_killed_run_goes_on_where_it_was(model, data, stream, cut, tmp_path):
    """Also where the last batch was written in part."""
    source = data
    if stream:
        rows = list(zip(data.split("train").reshape(-1, 1, 12, 16).float(), torch.arange(25) % 3, strict=True))
        source = DataLoader(rows, batch_size=6)
    with pytest.raises(Killed):
        tokenize(model, source, tmp_path / "t.npz", batch_size=10, progress=killed_after(20))
    part = tmp_path / "t.npz.part"
    part.write_bytes(part.read_bytes()[: len(part.read_bytes()) - cut])
    seen = []
    written = tokenize(model, source, tmp_path / "t.npz", batch_size=10, progress=lambda done, _: seen.append(done))
    resumed = 10 if cut else 20
    assert written.resumed == resumed
    assert seen[0] == (20 if cut else 25)
    with np.load(tmp_path / "t.npz") as file:
        np.testing.assert_array_equal(file["tokens"], expected(model, data))
        np.testing.assert_array_equal(file["labels"], np.arange(25) % 3)


def test_what_another_model_or_other_data_began_is_not_gone_on_with(model, data, tmp_path):
    with pytest.raises(Killed):
        tokenize(model, data, tmp_path / "t.npz", batch_size=10, progress=killed_after(10))
    before = (tmp_path / "t.npz.part").read_bytes()
    other = ArrayData(data.split("train").reshape(-1, 1, 12, 16)[:20])
    with pytest.raises(InputError, match=r"t.npz.part holds tokens of another data than the one that was given: finish them, or"):
        tokenize(model, other, tmp_path / "t.npz", batch_size=10)
    with torch.no_grad():
        model.encoders[0].layers[0].weight.add_(1)
    with pytest.raises(InputError, match="holds tokens of another model and batch_size than"):
        tokenize(model, data, tmp_path / "t.npz", batch_size=5)
    assert (tmp_path / "t.npz.part").read_bytes() == before


def test_nothing_is_begun_that_cannot_be_done(model, data, tmp_path):
    with pytest.raises(InputError, match=r"out must be a .npz file, got .*t.npy"):
        tokenize(model, data, tmp_path / "t.npy")
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        tokenize(model, data, tmp_path / "t.npz", batch_size=0)
    with pytest.raises(InputError, match="split 'test' is missing"):
        tokenize(model, data, tmp_path / "t.npz", split="test")
    with pytest.raises(InputError, match="images must have 1 channel and sides that are multiples of 4"):
        tokenize(model, ArrayData(torch.zeros(5, 1, 9, 8)), tmp_path / "t.npz")
    with pytest.raises(InputError, match="x must hold"):
        tokenize(model, ArrayData(torch.full((5, 1, 8, 8), 2.0)), tmp_path / "t.npz")
    with pytest.raises(InputError, match="tokens are of bits or classes on a grid"):
        tokenize(dvae.VAE(LOO(), num_pixels=192, num_latents=4), data, tmp_path / "t.npz")
    assert list(tmp_path.iterdir()) == []
