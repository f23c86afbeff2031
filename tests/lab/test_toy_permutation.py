"""The toy of orders: the paper's two figures, learning, and that what belongs to another problem is refused."""

import pytest
import torch

from dvae import InputError
from dvae.cli import main
from dvae.lab.toy import permutation_problem, permutation_toy


def test_the_best_and_the_mean_loss_are_the_papers():
    problem = permutation_problem(8, 0.05)
    assert problem.least == pytest.approx(6.2229, abs=5e-5)
    assert problem.most == pytest.approx(7.0229, abs=5e-5)


def test_the_expected_loss_is_exact():
    """A fixed item in the order drawn is worth 2 n epsilon / (n - 1): 0.8 for all of 8."""
    problem = permutation_problem(3, 0.1)
    sure = torch.tensor([[40.0, 20.0, 0.0], [0.0, 20.0, 40.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([problem.least, problem.least + 2 * 2 * 0.1 * 3 / 2, problem.most])
    torch.testing.assert_close(problem.expected_loss(sure), expected)


@pytest.mark.parametrize("estimator", ["Exact", "LOO", "RELAX"])
def test_the_order_is_learned(estimator, monkeypatch):
    monkeypatch.setattr("dvae.lab.toy.engine._EVALUATIONS", 1)
    run = permutation_toy(estimator, 4, 0.3, num_seeds=2, num_iterations=200, lr=0.05)
    assert run.loss.shape == (2, 1 if estimator == "Exact" else 2)
    torch.testing.assert_close(run.loss[0], torch.full_like(run.loss[0], run.most))
    assert run.loss[-1].max() < run.least + 0.75 * (run.most - run.least)


def test_control_variates_lower_the_variance():
    variance = {
        name: permutation_toy(name, 4, num_seeds=2, num_iterations=2).log_variance[0].mean()
        for name in ("REINFORCE", "LOO", "REBAR")
    }
    assert variance["REBAR"] < variance["REINFORCE"] - 0.3
    assert variance["LOO"] < variance["REINFORCE"] - 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutation_toy("DisARM"), "DisARM is for Bernoulli latents, got PlackettLuce"),
        (lambda: permutation_toy("LOO", 10), "num_items must be from 2 to 9, for all their orders are enumerated, got 10"),
        (lambda: permutation_toy("LOO", 4, 0.8), "epsilon must be positive and at most 1 - 1 / num_items, 0.75, got 0.8"),
        (lambda: permutation_toy("LOO", num_iterations=0), "num_iterations must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_command_writes_table_and_curves(tmp_path, capsys):
    small = ["--num_items=3", "--num_iterations=2", "--num_seeds=2", f"--out={tmp_path}", "--estimators=LOO,Exact"]
    assert main(["toy", "--problem=permutation", *small]) == 0
    assert "epsilon" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "toy.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problem=permutation", "--targets=0.5"], "targets is for --problem bernoulli, got --problem permutation"),
        (["--num_items=3"], "num_items is for --problem permutation, got --problem bernoulli"),
        (["--problem=order"], "problem must be one of bernoulli, permutation, got 'order'"),
    ],
)
def test_the_command_refuses_what_is_another_problems(arguments, message, capsys):
    assert main(["toy", *arguments]) != 0
    assert message in capsys.readouterr().err
