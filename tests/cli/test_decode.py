"""``dvae decode`` and ``dvae traverse``: images of codes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dvae.cli import main
from dvae.training.checkpoints import load_model


@pytest.fixture
def run(fit):
    assert fit("--name=small", "--without", "Pictures") == 0
    return "runs/small"


def test_codes_that_were_encoded_are_decoded(run, folder, capsys):
    assert main(["encode", run, "--out=codes.npz", "--device=cpu"]) == 0
    assert main(["decode", run, "codes.npz", "--out=decoded.npz", "--device=cpu"]) == 0
    assert "images of 10 codes, 1 x 4 x 4 each: decoded.npz" in capsys.readouterr().out
    model = load_model(run)[0]
    with np.load("images.npz") as images, np.load("decoded.npz") as decoded:
        b = model(torch.from_numpy(images["test"]).float())
        expected = model.likelihood.mean(model.decode(b)).detach().numpy()
        np.testing.assert_allclose(decoded["images"].reshape(10, 16), expected, rtol=1e-5)


def test_images_are_written_one_by_one_into_a_folder(run, folder):
    assert main(["encode", run, "--out=codes.npz", "--device=cpu"]) == 0
    assert main(["decode", run, "codes.npz", "--out=pictures", "--batch_size=3", "--device=cpu"]) == 0
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [f"{n}.png" for n in range(10)]
    with Image.open(folder / "pictures" / "0.png") as picture:
        assert picture.size == (4, 4)


def test_what_is_no_file_of_codes_is_refused(run, folder, refused):
    assert "must hold codes, as dvae encode writes them, or tokens, got" in refused("decode", run, "images.npz", "--out=x.npz")
    assert "codes must be a file, got no.npz" in refused("decode", run, "no.npz", "--out=x.npz")
    assert "out must be a .npz file or a folder, got x.png" in refused("decode", run, "images.npz", "--out=x.png")
    np.savez("other.npz", codes=np.zeros((3, 2), np.uint8), num_bits=np.array(9))
    assert "codes must be [B, 4], one a latent, got shape (3, 9)" in refused("decode", run, "other.npz", "--out=x.npz")
    np.savez("wrong.npz", codes=np.zeros((3, 2), np.uint8), num_bits=np.array(90))
    assert "packed must be uint8 [*, 12] of 90 bits" in refused("decode", run, "wrong.npz", "--out=x.npz")
    np.savez("text.npz", codes=np.array([["a"]]))
    assert "must hold numbers [N, D], or tokens [N, H, W], got <U1 [1, 1]" in refused("decode", run, "text.npz", "--out=x.npz")
    np.savez("pickled.npz", codes=np.array([[object()]]))
    assert "holds pickled objects" in refused("decode", run, "pickled.npz", "--out=x.npz")
    assert not (folder / "x.npz").exists()


def test_latents_are_drawn_in_the_order_of_their_effect(run, folder, capsys):
    flags = ["--num_examples=6", "--num_latents=3", "--num_pairs=2", "--json=effects.json", "--out=pictures", "--device=cpu"]
    assert main(["traverse", run, *flags]) == 0
    effects = json.loads((folder / "effects.json").read_text())["effects"]
    strongest = max(range(4), key=lambda latent: effects[latent])
    table = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert table[0] == str(strongest)
    side = 2 * 4 + 4
    with Image.open(folder / "pictures" / "latents.png") as picture:
        assert picture.size == (4 + 9 * side, 4 + 3 * side)
    with Image.open(folder / "pictures" / "interpolations.png") as picture:
        assert picture.size == (4 + 8 * side, 4 + 2 * side)
