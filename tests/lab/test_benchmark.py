"""The benchmark: what it counts, and what its command prints and writes. How long anything takes is not tested."""

import json

import pytest
import torch

from dvae.cli import main
from dvae.errors import InputError
from dvae.estimators import LOO, REINFORCE
from dvae.lab.benchmark import ESTIMATORS, ProcessSpeed, count_products, projected, spatial_speed
from dvae.lab.benchmark.processes import SHARED
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
        (["--estimators=[LOO(num_sample=4)]"], "LOO has no argument num_sample; did you mean num_samples?"),
        (["--modes=[fast]"], "modes must be out of eager, compiled, replicas; got fast"),
        (["--repetitions=0"], "repetitions must be at least 1, got 0"),
        (["--replicas=1"], "replicas must be at least 2, got 1"),
        (["--grow", "--estimators=[FOO]"], "got FOO"),
        (["--estimators=[RELAX, Exact]"], "estimators must not enumerate the 2^200 states, got Exact"),
        (["--long=10"], "steps must be at least 1000, got 10"),
        (["--processes=[2]"], "processes must be numbers that grow from 1"),
        (["--processes=[1, 9]"], "replicas must be at least the largest number of processes, 9, got 8"),
        (["--processes=[1]", "--steps=10"], "steps must be at least 300"),
        (["--processes=[1]", "--num_layers=2"], "got --num_layers 2: leave it out"),
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


@pytest.mark.slow
def test_processes_share_a_model_or_several(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--estimators=[REINFORCE]", "--processes=[1, 2]", "--replicas=2", "--steps=300", "--json=processes.json"]
    assert main(["benchmark", *flags]) == 0
    rows = json.loads((tmp_path / "processes.json").read_text())
    assert [(row["shared"], row["processes"]) for row in rows] == [(shared, number) for shared in SHARED for number in (1, 2)]
    for row, images in zip(rows, (24, 48, 48, 48), strict=True):
        assert row["images_per_second"] == pytest.approx(images / row["milliseconds"] * 1e3)
    assert "projected" in capsys.readouterr().out


def test_more_processes_are_projected_from_those_that_were_timed():
    """Of one model averaging costs (n - 1) / n of a ring's limit: here 2 ms of 2 processes, so 4 ms of very many."""
    one, two = ProcessSpeed(SHARED[0], 1, 4.0, 6000.0, 1.0), ProcessSpeed(SHARED[0], 2, 6.0, 8000.0, 4 / 3)
    assert projected([one, two], 2).milliseconds == 6.0
    four = projected([one, two], 4)
    assert (four.milliseconds, four.speedup) == (7.0, pytest.approx(16 / 7))
    assert four.images_per_second == pytest.approx(4 * 24 / 7e-3)
    # Of several models each process does as much as before.
    one, two = ProcessSpeed(SHARED[1], 1, 8.0, 24_000.0, 1.0), ProcessSpeed(SHARED[1], 2, 5.0, 38_400.0, 1.6)
    four = projected([one, two], 4)
    assert (four.speedup, four.milliseconds) == (pytest.approx(3.2), pytest.approx(2.5))


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
