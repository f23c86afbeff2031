"""A quantised autoencoder is trained, kept and measured as any other: by Lightning, in checkpoints, by the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import InputError, QuantizedAutoencoder
from dvae.cli import main
from dvae.data import ArrayData
from dvae.models import FSQ, LFQ, VQ
from dvae.training.checkpoints import Checkpoint, load_model

pytest.importorskip("vector_quantize_pytorch")

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
RESIDUAL = [
    {"class_path": f"dvae.networks.Residual{name}", "init_args": {"channels": 8, "blocks": 1}} for name in ("Encoder", "Decoder")
]


@pytest.fixture
def data() -> ArrayData:
    """Images of one bright square each, of one of 36 places."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(120, 1, 12, 12)
    for image, place in zip(images, torch.randint(0, 7, (120, 2), generator=generator).tolist(), strict=True):
        image[0, place[0] : place[0] + 5, place[1] : place[1] + 5] = 1
    return ArrayData(images[:80], images[80:100], images[100:], batch_size=20)


def autoencoder(quantizer, **options) -> QuantizedAutoencoder:
    torch.manual_seed(0)
    return QuantizedAutoencoder(quantizer, *RESIDUAL, image_shape=(1, 12, 12), num_latents=9, lr=0.005, **options)


@pytest.mark.parametrize("make", [lambda: FSQ([4, 4]), lambda: LFQ(4), lambda: VQ(16, 4)])
def test_it_learns_to_reconstruct(make, data):
    model = autoencoder(make())
    before = dvae.evaluate(model, data)
    pl.Trainer(max_steps=60, limit_val_batches=0, enable_checkpointing=False, **QUIET).fit(model, data)
    after = dvae.evaluate(model, data)
    assert after.reconstruction.mean > before.reconstruction.mean + 20
    assert after.mse.mean < before.mse.mean
    assert 0 < after.rate <= 9 * 4
    assert 1 < after.symbol_perplexity <= 16


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(data, tmp_path):
    quiet = {**QUIET, "limit_val_batches": 0, "enable_checkpointing": False}
    whole = autoencoder(FSQ([4, 4]))
    pl.Trainer(max_steps=6, **quiet).fit(whole, data)
    begun = autoencoder(FSQ([4, 4]))
    trainer = pl.Trainer(max_steps=3, **quiet)
    trainer.fit(begun, data)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = autoencoder(FSQ([4, 4]))
    pl.Trainer(max_steps=6, **quiet).fit(resumed, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_checkpoint_gives_the_model_and_says_that_it_is_no_vae(data, tmp_path):
    model = autoencoder(VQ(16, 4))
    trainer = pl.Trainer(max_steps=2, limit_val_batches=0, enable_checkpointing=False, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = Checkpoint.open(tmp_path / "model.ckpt").autoencoder()
    x = data.split("test")
    assert torch.equal(again.codes(x), model.eval().codes(x))
    with pytest.raises(InputError, match="is of a quantised autoencoder, which has no bound, prior or gradient estimator"):
        load_model(tmp_path / "model.ckpt")


def test_replicas_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="replicas are of a DiscreteVAE, got QuantizedAutoencoder"):
        dvae.replicate(autoencoder(FSQ()), 2)


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", **{name: data.split(name).reshape(-1, 1, 12, 12).numpy() for name in ("train", "valid", "test")})
    (tmp_path / "fsq.yaml").write_text(
        json.dumps(
            {
                "model": {
                    "class_path": "dvae.QuantizedAutoencoder",
                    "init_args": {
                        "quantizer": {"class_path": "dvae.models.FSQ"},
                        "encoder": RESIDUAL[0],
                        "decoder": RESIDUAL[1],
                        "num_latents": 9,
                    },
                },
            }
        )
    )
    flags = ["--data=images.npz", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.max_steps=4"]
    flags += ["--without=BestCheckpoint", "--name=fsq"]
    assert main(["fit", "--config=fsq.yaml", *flags]) == 0
    return "runs/fsq"


def test_the_commands_take_it_where_they_make_sense(run, capsys):
    assert main(["evaluate", run, "--json=e.json"]) == 0
    figures = json.loads(Path("e.json").read_text())
    assert figures["num_values"] == 16
    assert "elbo" not in figures
    assert "rate of the code, symbol by symbol (bits)" in capsys.readouterr().out
    assert main(["tokenize", run, "images.npz", "--out=t.npz", "--split=test"]) == 0
    assert np.load("t.npz")["tokens"].shape == (20, 3, 3)
    assert main(["encode", run, "--out=c.npz"]) == 0
    assert np.load("c.npz")["codes"].shape == (20, 9)
    assert main(["sample", run, "--out=p", "--num_images=4"]) == 0
    assert "no prior to draw codes from" in capsys.readouterr().out
    assert main(["variance", run]) == 1
    assert "which has no bound, prior or gradient estimator" in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda: FSQ([4, 4]), lambda: LFQ(4), lambda: VQ(16, 4)])
def test_it_is_trained_in_bfloat16(make, data):
    model = autoencoder(make())
    trainer = pl.Trainer(max_steps=2, val_check_interval=2, precision="bf16-mixed", enable_checkpointing=False, **QUIET)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/reconstruction"].isfinite()
