"""The paper's tables: rows are trained, evaluated, kept and printed; what is done is not done again."""

import json

import numpy as np
import pytest

from dvae.cli import main
from dvae.lab.likeness import Mean
from dvae.lab.paper import PUBLISHED, ROWS, Result, chosen, read_results, shipped_results

SETUP = (
    "--model.num_latents=4",
    "--model.compile=false",
    "--data.eval_batch_size=5",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--max_steps=12",
    "--num_samples=2",
    "--mnist=digits.npz",
)


def result(lr: float, steps: int, valid: float) -> Result:
    figure = Mean(valid, 0.1)
    return Result("MNIST/L1", "RELAX", lr, "bundled", steps, -1.0, -1.0, 1, figure, figure, figure, figure, 100, 1.0)


@pytest.fixture
def digits(folder):
    """A file of the shape of the field's binarization."""
    images = np.random.default_rng(0).integers(0, 2, (80, 784), dtype=np.uint8)
    np.savez(folder / "digits.npz", train=images[:40], valid=images[40:60], test=images[60:])


@pytest.fixture
def characters(folder):
    """A file of the shape of Omniglot's."""
    io = pytest.importorskip("scipy.io")
    generator = np.random.default_rng(0)
    images = {"data": generator.random((784, 60)), "testdata": generator.random((784, 20))}
    io.savemat(folder / "chardata.mat", images)


def test_a_row_is_trained_once_and_printed_beside_the_published_figure(folder, digits, capsys):
    command = ["paper", "run", "--rows=MNIST/L1", "--estimators=[REBAR]", "--lrs=[0.001,0.01]", *SETUP]
    assert main(command) == 0
    results = read_results(folder / "runs/paper/results")
    assert {own.lr for own in results} == {0.001, 0.01}
    assert all(own.steps == 12 and own.data == "digits.npz" and own.highest_train_elbo >= own.train_elbo for own in results)
    better = chosen(results)["MNIST/L1", "REBAR"]
    assert better.valid_elbo.mean == max(own.valid_elbo.mean for own in results)
    capsys.readouterr()
    assert main([*command, "--mnist=another.npz"]) == 0
    assert "trained for" not in capsys.readouterr().out
    assert {own.data for own in read_results(folder / "runs/paper/results")} == {"digits.npz"}  # what it was trained on
    assert main(["paper", "table", "--rows=MNIST/L1", "--results=runs/paper/results", "--markdown"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "| REBAR |" in line]
    assert "-111.60" in line
    assert "-114.32" in line


def test_omniglot_needs_its_file_and_trains_on_it(folder, characters, refused, capsys):
    command = ["paper", "run", "--rows=Omniglot/L1", "--estimators=[REBAR]", *SETUP]
    assert "chardata.mat" in refused(*command, "--omniglot=elsewhere.mat")
    assert main(command) == 0
    (own,) = read_results(folder / "runs/paper/results")
    assert (own.row, own.data) == ("Omniglot/L1", "chardata.mat")


def test_what_a_row_is_cannot_be_changed(folder, refused):
    assert "model.lr" in refused("paper", "run", "--model.lr=0.1")
    assert "config" in refused("paper", "run", "--config=l2")
    assert "did you mean MNIST/NL1" in refused("paper", "run", "--rows=MNIST/NL")


def test_a_file_that_is_no_result_is_named(tmp_path, refused):
    (tmp_path / "other.json").write_text(json.dumps({"row": "MNIST/L1"}))
    assert "other.json" in refused("paper", "table", f"--results={tmp_path}")


def test_of_the_longest_runs_the_best_on_validation_is_chosen():
    results = [result(1e-3, 10, -90.0), result(1e-4, 20, -110.0), result(5e-4, 20, -100.0)]
    assert chosen(results)["MNIST/L1", "RELAX"].lr == 5e-4


def test_shipped_results_are_of_published_rows():
    assert all((own.row, own.estimator) in PUBLISHED and own.row in ROWS for own in shipped_results())
