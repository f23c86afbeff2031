"""The jigsaw: tiles are cut and drawn where they belong, a network learns to order them, and wrong arguments are named."""

import json

import pytest
import torch

from dvae import InputError
from dvae.cli import main
from dvae.lab.jigsaw import TileScores, cut, jigsaw
from dvae.report.jigsaw import jigsaw_picture


@pytest.mark.parametrize("grid", [2, 3])
def test_tiles_are_cut_row_by_row(grid):
    image = torch.arange(784.0).reshape(1, 28, 28)
    size = 28 // grid
    tiles = cut(image.flatten(1), grid)
    assert tiles.shape == (1, grid**2, size**2)
    torch.testing.assert_close(tiles[0, 1], image[0, :size, size : 2 * size].flatten())
    torch.testing.assert_close(tiles[0, grid], image[0, size : 2 * size, :size].flatten())


def test_a_tiles_score_does_not_depend_on_where_chance_put_it():
    network, tiles = TileScores(9, hidden=8), torch.rand(5, 4, 9)
    order = torch.randperm(4)
    torch.testing.assert_close(network(tiles[:, order]), network(tiles)[:, order])


@pytest.mark.parametrize("estimator", ["LOO", "RELAX"])
def test_digits_in_four_tiles_are_put_together(estimator, monkeypatch):
    monkeypatch.setattr("dvae.lab.jigsaw._EVALUATIONS", 1)
    run = jigsaw(estimator, num_steps=40)
    assert run.whole[0] < 0.2
    assert run.whole[-1] > 0.5
    assert run.tiles[-1] > run.whole[-1]
    torch.testing.assert_close(run.restored.sum((1, 2)), run.original.sum((1, 2)))
    assert jigsaw_picture(run).shape == (3, 3 * (2 * 30 + 8) + 8, 8 * (2 * 30 + 8) + 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jigsaw("DisARM"), "DisARM is for Bernoulli latents, got PlackettLuce"),
        (lambda: jigsaw(grid=8), "grid must be from 2 to 7, got 8"),
        (lambda: jigsaw(num_steps=0), "num_steps must be from 1 to"),
        (lambda: jigsaw(latent="Bernoulli"), "latent must be a family of orders such as PlackettLuce, got Bernoulli"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_command_writes_figures_and_pictures(tmp_path, capsys):
    arguments = ["--estimators=LOO", "--grids=2", "--num_steps=1", "--latent=SinkhornPlackettLuce", f"--out={tmp_path}"]
    assert main(["jigsaw", *arguments]) == 0
    assert "2 x 2" in capsys.readouterr().out
    assert json.loads((tmp_path / "jigsaw.json").read_text())[0]["steps"] == [0, 1]
    assert (tmp_path / "LOO_2x2.png").read_bytes().startswith(b"\x89PNG")


def test_grids_are_numbers(capsys):
    assert main(["jigsaw", "--grids=2x2"]) != 0
    assert "grids must be whole numbers such as 2,3, got 2x2" in capsys.readouterr().err
