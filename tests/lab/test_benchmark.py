"""The benchmark: what it counts, and what its command prints and writes. How long anything takes is not tested."""

import json

import pytest
import torch

from dvae.cli import main
from dvae.errors import InputError
from dvae.estimators import LOO, REINFORCE
from dvae.lab.benchmark import ESTIMATORS, count_products, spatial_speed
from dvae.report.benchmark import plot_growth
from dvae.training.module import DiscreteVAE


def test_products_of_a_step_are_those_of_its_equations():
    """Of the linear model under REINFORCE four: each map forward, and its weights' gradient. LOO decodes two samples."""
    product = 2 * 24 * 784 * 200
    assert count_products(DiscreteVAE(REINFORCE()), 24) == 4 * product
    assert count_products(DiscreteVAE(LOO()), 24) == 6 * product
    assert count_products(DiscreteVAE(REINFORCE()), 48) == 8 * product


def test_every_estimator_has_a_row():
    assert {"REINFORCE", "RELAX", "RELAX(coupled=False)", "RODEO", "ReinMax", "Concrete"} <= set(ESTIMATORS)
    for make in ESTIMATORS.values():
        assert count_products(DiscreteVAE(make(), num_pixels=6, num_latents=4), 3) > 0


def test_the_command_prints_ratios_and_writes_figures(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--estimators=[REINFORCE, LOO]", "--modes=[eager]", "--steps=3", "--repetitions=1"]
    assert main(["benchmark", *flags, "--json=times.json", "--plot=times.png"]) == 0
    output = capsys.readouterr().out
    assert all(word in output for word in ("eager", "REINFORCE", "LOO"))
    times = json.loads((tmp_path / "times.json").read_text())["times"]
    assert [(row["estimator"], row["mode"], row["models"]) for row in times] == [("REINFORCE", "eager", 1), ("LOO", "eager", 1)]
    for row in times:
        assert row["fit"] > 0
        assert row["bare"] > row["floor"] > 0
        assert row["memory"] > 50
        assert row["examples_per_second"] == pytest.approx(24 * row["steps_per_second"])
    assert times[1]["flops"] == 1.5 * times[0]["flops"]
    assert (tmp_path / "times.png").stat().st_size > 5000


@pytest.mark.slow
def test_all_modes_the_long_run_and_growth(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--estimators=[REINFORCE]", "--steps=5"]
    assert main(["benchmark", *flags, "--repetitions=1", "--replicas=2", "--json=times.json"]) == 0
    times = {row["mode"]: row for row in json.loads((tmp_path / "times.json").read_text())["times"]}
    assert list(times) == ["eager", "compiled", "replicas"]
    assert times["replicas"]["flops"] == 2 * times["compiled"]["flops"]
    assert main(["benchmark", *flags, "--long=2000", "--json=pace.json"]) == 0
    pace = json.loads((tmp_path / "pace.json").read_text())
    assert len(pace["wall"]) == len(pace["cpu"]) == 2
    assert main(["benchmark", *flags, "--grow", "--json=growth.json", "--plot=growth.png"]) == 0
    growth = json.loads((tmp_path / "growth.json").read_text())
    assert list(growth["replicas"]["REINFORCE"]) == ["1", "2", "4", "8"]
    assert (tmp_path / "growth.png").is_file()


def test_growth_is_drawn(tmp_path):
    path = plot_growth({"batch size": {"LOO": {12: 1.0, 24: 2.0}}, "layers": {"LOO": {1: 1.0}}}, tmp_path / "growth.png")
    assert path.stat().st_size > 5000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--estimators=[FOO]"], "estimators must be out of"),
        (["--modes=[fast]"], "modes must be out of eager, compiled, replicas; got fast"),
        (["--repetitions=0"], "repetitions must be at least 1, got 0"),
        (["--replicas=1"], "replicas must be at least 2, got 1"),
        (["--long=10"], "steps must be at least 1000, got 10"),
        pytest.param(
            ["--device=cuda"],
            "there is no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
)
def test_bad_arguments_end_in_one_sentence(flags, message, capsys):
    assert main(["benchmark", *flags]) == 1
    assert message in capsys.readouterr().err


def test_the_convolutional_model_is_timed_against_a_plain_loop_in_turns():
    turns = []
    ways = ["plain", "eager"]  # compiling takes long
    found = spatial_speed(
        ways, size=8, channels=4, blocks=1, batch_size=4, steps=2, repetitions=3, progress=lambda: turns.append(1)
    )
    assert [own.way for own in found] == ways
    assert all(own.images_per_second > 0 for own in found)
    assert found[0].to_plain == 1
    assert len(turns) == 2 * 4


def test_a_way_of_training_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="ways must be out of plain, eager, compiled, compiled, channels_last; got fast"):
        spatial_speed(["fast"])


def test_searches_have_a_table_of_their_own(capsys, tmp_path):
    assert main(["benchmark", "--retrieval=1000", f"--json={tmp_path / 'rates.json'}"]) == 0
    assert "100 nearest of 1000 codes of 64 bits" in capsys.readouterr().out
    assert json.loads((tmp_path / "rates.json").read_text())[0]["way"] == "counting words"
