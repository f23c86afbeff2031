"""dvae rl compare, variance and certify: tables, what is not run twice, and what is refused."""

import json
from pathlib import Path

import pytest

from dvae.cli import main

SHORT = ["--config", "cartpole_a2c", "--model.max_environment_steps", "150"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*more: str) -> int:
    return main(["rl", "compare", *SHORT, "--estimators", "[A2C, RELAX]", "--seeds", "2", "--out", "results", *more])


def test_a_comparison_has_a_row_for_each_estimator_and_rate_and_is_not_run_twice(folder, capsys):
    assert compare("--lr", "0.003,0.01") == 0
    printed = capsys.readouterr().out
    rows = json.loads((folder / "results/figures.json").read_text())["rows"]
    assert [(row["estimator"], row["lr"]) for row in rows] == [("A2C", 0.003), ("RELAX", 0.003), ("A2C", 0.01), ("RELAX", 0.01)]
    assert all(row["episodes"]["unsolved"] == 2 for row in rows)
    assert rows[0]["last_reward"]["mean"] > 5
    assert "never" in printed
    assert (folder / "results/curves.png").stat().st_size > 10_000
    written = (folder / "results/RELAX_lr0.01.json").stat().st_mtime_ns
    assert compare("--lr", "0.003,0.01") == 0
    assert capsys.readouterr().out.count("learning rate") == 0
    assert (folder / "results/RELAX_lr0.01.json").stat().st_mtime_ns == written


def test_results_of_other_settings_do_not_come_into_one_table(folder, capsys):
    assert compare("--estimators", "[A2C]") == 0
    assert compare("--model.entropy_bonus", "0.5") == 1
    assert "results of other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimators", "[A3C]"], "estimators must be out of REINFORCE, A2C"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--estimators", "[LAX]"], "actions, which are one of several"),
        (["--env", "CartPoll-v1"], "env must be an environment of gymnasium"),
        (["--model.learn", "3"], "PolicyGradient has no argument learn"),
    ],
)
def test_what_cannot_be_compared_is_named(folder, capsys, arguments, message):
    assert compare(*arguments) in (1, 2)
    assert message in capsys.readouterr().err


def test_variances_at_a_checkpoint_are_of_the_same_rollouts(folder, capsys):
    assert main(["rl", "fit", *SHORT, "--name", "run", "--trainer.enable_progress_bar", "false"]) == 0
    options = ["--num_fits", "3", "--num_rollouts", "6", "--num_replicates", "4", "--json", "variance.json"]
    assert main(["rl", "variance", "runs/run", "--estimators", "[REINFORCE, A2C, RELAX]", *options]) == 0
    arms = json.loads(Path("variance.json").read_text())["arms"]
    assert [(arm["estimator"], arm["phi_objective"]) for arm in arms] == [
        ("REINFORCE", None),
        ("A2C", None),
        ("RELAX", "step"),
        ("RELAX", "episode"),
    ]
    assert arms[0]["log_ratio"] == 0
    # Shared rollouts: the ratio of two arms is known far better than either.
    assert arms[1]["log_ratio_std_error"] < arms[1]["std_error"]
    capsys.readouterr()
    assert main(["rl", "variance", "runs/run", "--estimators", "[REBAR]"]) == 1
    assert "arms must be out of" in capsys.readouterr().err


def test_a_biased_estimator_that_calls_itself_unbiased_does_not_pass(folder, capsys):
    (folder / "my_own.py").write_text(
        "import dvae\n\n\nclass Doubled(dvae.estimators.REINFORCE):\n"
        "    latents = (dvae.latents.Categorical,)\n\n"
        "    def gradient(self, f, q, draw, context):\n        return 2 * q.score(draw.b, draw.value)\n"
    )
    assert main(["rl", "certify", "--estimators", "[REINFORCE]", "--num_episodes", "20000", "--json", "figures.json"]) == 0
    assert len(json.loads(Path("figures.json").read_text())["reports"]) == 4
    assert main(["rl", "certify", "--estimators", "[my_own.Doubled]", "--num_episodes", "20000"]) == 1
    assert "biased" in capsys.readouterr().out


@pytest.mark.slow
def test_the_benchmark_times_one_agent_and_several(folder, capsys):
    assert (
        main(
            [
                "rl",
                "benchmark",
                "--num_updates",
                "5",
                "--repetitions",
                "1",
                "--num_seeds",
                "2",
                "--peers",
                "false",
                "--json",
                "f.json",
            ]
        )
        == 0
    )
    loops = json.loads(Path("f.json").read_text())["loops"]
    assert [loop["name"] for loop in loops] == ["one agent", "2 agents"]
    assert all(loop["steps_per_second"] > 0 for loop in loops)


@pytest.mark.slow
def test_the_benchmark_counts_until_the_task_is_solved(folder, capsys):
    assert main(["rl", "benchmark", "--solve", "2", "--peers", "false", "--json", "f.json"]) == 0
    loops = json.loads(Path("f.json").read_text())["loops"]
    assert [loop["lr"] for loop in loops] == [0.0007, 0.003]
    assert loops[1]["episodes"][3] == 0  # unsolved
    assert 100 < loops[1]["episodes"][0] < 2000
    assert main(["rl", "benchmark", "--solve", "0"]) == 1
    assert "solve must be at least 1, got 0" in capsys.readouterr().err
