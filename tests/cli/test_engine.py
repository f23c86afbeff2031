"""``dvae fit --engine optuna``: workers share a sweep, and leave one table of it."""

import csv
import json

import pytest

from dvae.cli import main

SHARED = ("--engine=optuna", "--storage=sqlite:///sweep.db", "--name=s", "--without=Pictures,VarianceMonitor")


def test_a_sweep_leaves_a_table_and_curves_and_a_second_worker_finds_nothing_to_do(fit, folder, capsys):
    pytest.importorskip("optuna")
    sweep = "--sweep={lr: [0.01, 0.001], estimator: [LOO]}"
    assert fit(*SHARED, sweep, "--replicas=2") == 0
    with (folder / "runs/s/sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["lr"], row["estimator"], row["seed"]) for row in rows] == [
        (lr, "LOO", seed) for lr in ("0.01", "0.001") for seed in ("0", "1")
    ]
    assert all(row["trial"] == "complete" and float(row["val/importance_weighted_bound"]) < 0 for row in rows)
    content = json.loads((folder / "runs/s/sweep.json").read_text())
    assert [len(row["models"]) for row in content["rows"]] == [2, 2]
    mean = sum(float(row["train/elbo"]) for row in rows[:2]) / 2
    assert content["rows"][0]["train_elbo"]["mean"] == pytest.approx(mean)
    capsys.readouterr()
    assert fit(*SHARED, sweep, "--replicas=2") == 0
    output = capsys.readouterr().out
    assert "trained for" not in output
    assert "4 trials of runs/s" in output
    assert main(["curves", "runs/s"]) == 0
    assert "lr=0.001" in capsys.readouterr().out
    assert [path.name for path in (folder / "runs/s").glob("lr=*/version_*")] == ["version_0"] * 4


def test_settings_of_a_range_are_drawn_and_their_table_has_what_was_drawn(fit, folder, capsys):
    pytest.importorskip("optuna")
    assert fit(*SHARED, "--sweep={lr: {log: [0.0001, 0.01]}}", "--trials=2", "--pruner=median", "--metric=val/elbo") == 0
    with (folder / "runs/s/sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["lr"] for row in rows}) == 2
    assert all(0.0001 <= float(row["lr"]) <= 0.01 and float(row["val/elbo"]) < 0 for row in rows)
    assert main(["curves", "runs/s"]) == 0
    assert "trial=lr=" in capsys.readouterr().out


def test_what_an_engine_needs_and_what_needs_an_engine_is_told(fit, folder, refused, small):
    begin = ("fit", *small, "--model.num_pixels=16")
    sweep = "--sweep={lr: [0.01, 0.001]}"
    assert "storage is for sweeps that workers share, got sqlite:///sweep.db without --engine optuna" in refused(
        *begin, sweep, "--storage=sqlite:///sweep.db"
    )
    assert "engine needs sweep, the settings" in refused(*begin, *SHARED)
    assert "engine needs storage, a database" in refused(*begin, sweep, "--engine=optuna")
    assert "ckpt_path cannot be given with --engine: the same command goes on" in refused(
        *begin, *SHARED, sweep, "--ckpt_path=last"
    )
    assert "engine must be optuna, got ray" in refused(*begin, *SHARED[1:], sweep, "--engine=ray")
    (folder / "shared.yaml").write_text("engine: optuna\n")
    assert "engine must be a flag of dvae fit" in refused(*begin, "--config=shared.yaml")
    assert not (folder / "runs").exists()
