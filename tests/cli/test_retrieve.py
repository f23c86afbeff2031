"""``dvae retrieve``: neighbours by code, as figures and as a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from dvae.cli import main


def test_figures_and_a_picture_of_a_run(fit, folder, capsys):
    assert fit("--name=small", "--without", "Pictures") == 0
    capsys.readouterr()
    flags = ["runs/small", "--k=3,5", "--out=pictures", "--device=cpu"]
    assert main(["retrieve", *flags]) == 0
    assert "10 queries in 40 examples, 4 bits; the data have no labels" in capsys.readouterr().out
    with Image.open(folder / "pictures" / "neighbours.png") as picture:
        assert picture.size == (4 + 6 * 12, 4 + 8 * 12)
    with np.load("images.npz") as file:
        images = dict(file)
    kinds = {f"{name}_labels": (split[:, 0] > 0.5).astype(np.int64) for name, split in images.items()}
    np.savez("labelled.npz", **images, **kinds)
    assert main(["retrieve", *flags, "--data=labelled.npz", "--json=figures.json"]) == 0
    columns = capsys.readouterr().out.split("random hyperplanes")[0]
    assert all(number in columns for number in ("3", "5", "vote"))
    codes = json.loads((folder / "figures.json").read_text())["codes"]
    assert set(codes) == {"model", "random hyperplanes", "signs of principal components"}
    assert 0 <= codes["model"]["precision"]["5"]["mean"] <= 1


def test_an_index_is_made_once_and_one_of_other_codes_is_refused(fit, folder, capsys, refused):
    pytest.importorskip("usearch")
    for seed in (0, 1):
        assert fit(f"--name=small{seed}", "--without", "Pictures", f"--seed_everything={seed}") == 0
    flags = ["--k=3", "--index=codes.usearch", "--device=cpu"]
    capsys.readouterr()
    assert main(["retrieve", "runs/small0", *flags]) == 0
    assert "index codes.usearch of 40 codes, made in" in capsys.readouterr().out
    assert main(["retrieve", "runs/small0", *flags]) == 0
    assert "index codes.usearch of 40 codes: " in capsys.readouterr().out
    assert "index codes.usearch is not of the codes that this model gives" in refused("retrieve", "runs/small1", *flags)


def test_figures_without_labels_are_refused(fit, refused):
    assert fit("--name=small", "--without", "Pictures") == 0
    assert "json is for figures, which need labels" in refused("retrieve", "runs/small", "--k=3", "--json=f.json", "--device=cpu")
