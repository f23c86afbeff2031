"""Data of a user's own on the command line: from the first command to codes, without a number that is the library's."""

import json

import numpy as np
import pytest

from dvae.cli import main

MODULE = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader


class Colours(pl.LightningDataModule):
    def __init__(self, count: int = 40):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (count, 3, 4, 4), generator=generator)
        self.rows = [{"image": image, "label": index % 5} for index, image in enumerate(images)]

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, batch_size=10)

    def test_dataloader(self):
        return DataLoader(self.rows, batch_size=7)
"""
QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--model.val_num_samples=2")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with a data module in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_colours.py").write_text(MODULE)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_colours_from_a_module_of_ones_own(elsewhere, capsys):
    flags = ["--data", "own_colours.Colours", "--model.input_key", "image", "--model.likelihood", "DiscretizedLogistic"]
    assert main(["fit", *flags, *QUIET, "--model.num_latents=8", "--trainer.max_steps=6", "--name=own"]) == 0
    assert capsys.readouterr().out.strip().endswith("best.ckpt --trust")
    assert main(["evaluate", "runs/own", "--trust", "--num_samples=2", "--num_draws=4", "--json=figures.json"]) == 0
    assert "bits per dimension" in capsys.readouterr().out
    figures = json.loads((elsewhere / "figures.json").read_text())
    assert figures["num_examples"] == 40
    assert figures["bits_per_dimension"]["mean"] == pytest.approx(-figures["elbo"]["mean"] / 48 / np.log(2))
    assert main(["sample", "runs/own", "--trust", "--out=pictures", "--num_images=8"]) == 0
    assert main(["encode", "runs/own", "--trust", "--out=codes.npz"]) == 0
    with np.load("codes.npz") as codes:
        assert codes["labels"].tolist() == [index % 5 for index in range(40)]
        written = np.unpackbits(codes["codes"], axis=1, count=int(codes["num_bits"]))
    assert main(["predict", "--ckpt_path=runs/own", "--trust", "--out=predicted.npz"]) == 0
    with np.load("predicted.npz") as codes:
        assert (np.unpackbits(codes["codes"], axis=1, count=int(codes["num_bits"])) == written).all()
    assert main(["variance", "runs/own", "--trust", "--estimators=LOO", "--num_draws=20", "--phi_steps=2"]) == 0


@pytest.mark.filterwarnings("ignore")
def test_a_foreign_module_is_not_imported_without_trust(elsewhere, capsys):
    flags = ["--data", "own_colours.Colours", "--model.input_key", "image", "--model.likelihood", "Poisson"]
    assert main(["fit", *flags, *QUIET, "--model.num_latents=8", "--trainer.max_steps=2", "--name=own"]) == 0
    assert main(["evaluate", "runs/own"]) == 1
    assert "names classes outside dvae (own_colours.Colours)" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_convolutions_take_every_size_from_the_data(elsewhere):
    np.savez(elsewhere / "colour.npz", train=np.random.default_rng(0).integers(0, 256, (20, 8, 12, 3), dtype=np.uint8))
    flags = [
        "--config=conv",
        "--config=loo",
        "--data=colour.npz",
        "--model.likelihood=DiscretizedLogistic",
        "--model.num_latents=9",
    ]
    assert main(["fit", *flags, *QUIET, "--trainer.max_steps=2", "--data.valid_fraction=0.2", "--name=sized"]) == 0
    assert (elsewhere / "runs/sized/version_0/reconstructions.png").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=nofile.npz"], "data must be a file, a folder or a class, got nofile.npz, which does not exist"),
        (["--data=ImageFolder"], "--data: ImageFolder needs --data.path"),
        (["--data=nowhere.Images"], "--data: cannot import 'nowhere.Images'"),
        (["--data=grey.npz"], r"divide_by=255, of the data, makes grey levels in [0, 1] of bytes"),
        (
            ["--data=grey.npz", "--model.image_shape=[1, 5, 5]"],
            "num_pixels must be 16, the values of an example of the data, got 25",
        ),
        (["--data=grey.npz", "--schedule={beta:{0:1}}"], "in YAML a blank follows every colon"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_leave_no_run(elsewhere, capsys, flags, message):
    np.savez(elsewhere / "grey.npz", train=np.full((20, 4, 4), 200, np.uint8))
    assert main(["fit", *flags, *QUIET, "--trainer.max_steps=2", "--name=wrong"]) in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dvae: error")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_other_data_is_refused_and_leaves_nothing(elsewhere, capsys):
    np.savez(elsewhere / "first.npz", train=np.random.default_rng(0).integers(0, 2, (20, 16)))
    np.savez(elsewhere / "second.npz", train=np.random.default_rng(0).integers(0, 2, (20, 9)))
    flags = ["--data.valid_fraction=0.2", *QUIET, "--trainer.max_steps=4", "--model.num_latents=3"]
    assert main(["fit", "--data=first.npz", *flags, "--name=first"]) == 0
    assert "--split valid" in capsys.readouterr().out
    checkpoint = "--ckpt_path=runs/first/version_0/checkpoints/last.ckpt"
    assert main(["fit", "--data=second.npz", *flags, "--name=second", checkpoint, "--trainer.max_steps=9"]) == 1
    assert "is of a model of 16 values per example, but the data have 9" in capsys.readouterr().err
    assert sorted(path.name for path in (elsewhere / "runs").iterdir()) == ["first"]


@pytest.mark.filterwarnings("ignore")
def test_tables_are_not_drawn_and_a_list_is_told_how_to_be_written(elsewhere, capsys):
    (elsewhere / "t.csv").write_text("\n".join(["a,b,c,d", *(f"{i},{i % 3},{i % 5},{-i}" for i in range(30))]))
    flags = ["--data=t.csv", "--model.likelihood=Normal", *QUIET, "--trainer.max_steps=3", "--model.num_latents=3"]
    assert main(["fit", *flags, "--data.valid_fraction=0.2", "--data.test_fraction=0.2", "--name=table"]) == 0
    assert not list((elsewhere / "runs").rglob("*.png"))
    assert main(["evaluate", "runs/table", "--num_samples=2", "--num_draws=4"]) == 0
    printed = capsys.readouterr().out
    assert "6 examples of test" in printed
    assert "of a density" in printed
    assert main(["sample", "runs/table", "--out=pictures"]) == 1
    assert "data must be images to be drawn, got Table" in capsys.readouterr().err
    assert main(["fit", *flags, "--data.columns", "a", "--name=wrong"]) in (1, 2)
    assert "--data.columns cannot be 'a'; a list is written '[a, b]'" in capsys.readouterr().err
