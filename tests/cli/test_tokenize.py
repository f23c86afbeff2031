"""``dvae tokenize``: folders of images, and other data, as grids of integers."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import dvae
from dvae.cli import main
from dvae.data import ArrayData


@pytest.fixture
def run(tmp_path):
    """A checkpoint of a model of 8 x 8 colour images, of 2 bits at each of 2 x 2 places."""
    networks = [
        {"class_path": f"dvae.networks.Residual{name}", "init_args": {"channels": 4, "blocks": 1}}
        for name in ("Encoder", "Decoder")
    ]
    levels = dvae.likelihoods.DiscretizedLogistic()
    model = dvae.DiscreteVAE(dvae.estimators.LOO(), *networks, likelihood=levels, image_shape=(3, 8, 8), num_latents=8)
    images = torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    np.save(tmp_path / "images.npy", images.numpy())
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(model, ArrayData(tmp_path / "images.npy"))
    trainer.save_checkpoint(tmp_path / "run" / "best.ckpt")
    return tmp_path / "run"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photographs").mkdir()
    generator = np.random.default_rng(0)
    for number, size in enumerate([(20, 30), (50, 40), (16, 16)]):
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{number}.png")
    return tmp_path / "photographs"


def test_a_folder_of_images_becomes_a_file_of_tokens(run, folder, tmp_path, capsys):
    assert main(["tokenize", str(run), str(folder), "--out", str(tmp_path / "t.npz"), "--device=cpu"]) == 0
    assert "tokens of 3 images, 2 x 2 each, from 0 to 3:" in capsys.readouterr().out
    assert main(["tokenize", str(run), str(folder), "--out", str(tmp_path / "u.npz"), "--size=16", "--device=cpu"]) == 0
    with np.load(tmp_path / "u.npz") as file:
        assert file["tokens"].shape == (3, 4, 4)
        assert [name.rsplit("/", 1)[-1] for name in file["files"]] == ["0.png", "1.png", "2.png"]
        model = dvae.training.checkpoints.load_model(run)[0]
        images = dvae.data.ImageFolder(folder, 16).store("train").take(torch.arange(3)).float()
        np.testing.assert_array_equal(file["tokens"], model.encode_ids(images.reshape(3, 3, 16, 16)).numpy())


def test_other_data_become_tokens_too(run, tmp_path, capsys):
    assert main(["tokenize", str(run), str(tmp_path / "images.npy"), "--out", str(tmp_path / "t.npz"), "--device=cpu"]) == 0
    assert "tokens of 12 images, 2 x 2 each" in capsys.readouterr().out
    assert main(["tokenize", str(run), str(tmp_path / "images.npy"), "--out", str(tmp_path / "t.npz"), "--size=16"]) == 1
    assert "size is for folders of images, got size=16" in capsys.readouterr().err


def test_a_checkpoint_is_evaluated_encoded_and_drawn_on_images_of_another_size(run, tmp_path, capsys):
    larger = tmp_path / "larger.npz"
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    np.savez(larger, train=images, test=images)
    same = [str(run), "--data", str(larger), "--device=cpu"]
    assert main(["evaluate", *same, "--num_samples=2", "--num_draws=4"]) == 0
    assert "active units (of 32 a layer)" in capsys.readouterr().out
    assert main(["encode", *same, f"--out={tmp_path / 'codes.npz'}"]) == 0
    assert "6 codes of 32 bits" in capsys.readouterr().out
    assert main(["sample", *same, f"--out={tmp_path / 'pictures'}", "--num_images=4"]) == 0
    with Image.open(tmp_path / "pictures" / "samples.png") as picture:
        assert picture.size == (4 + 4 * (2 * 16 + 4), 4 + 2 * 16 + 4)
