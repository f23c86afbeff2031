"""Curves are those of metrics.csv: of replicas, sweeps and resumed runs."""

import csv
import math
from pathlib import Path

import pytest

from dvae.cli import main
from dvae.report.curves import Curve, endings, plot_training, reached, read_curves
from dvae.report.tables import labels


def write(folder, rows, **config):
    folder.mkdir(parents=True)
    names = sorted({name for row in rows for name in row})
    with (folder / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in config.items()))
    return folder


def elbo(*values):
    return {f"train/elbo/{index}": value for index, value in enumerate(values)}


def test_replicas_have_a_spread_and_a_sweep_a_curve_for_each_setting(tmp_path):
    rows = [
        {
            "step": 9,
            "seconds": 1.5,
            "train/elbo": -9,
            "train/elbo/0": -10,
            "train/elbo/1": -8,
            "train/elbo/2": -4,
            "train/elbo/3": -4,
        },
        {"step": 19, "seconds": 2.5, "val/elbo": -5},
        {"step": 19, "seconds": 2.75, "train/elbo": -9, "train/elbo/0": -6, "train/elbo/2": -2, "train/elbo/3": -4},
    ]
    write(tmp_path / "version_0", rows, replicas=2, sweep="{lr: [0.1, 0.2]}")
    curves = read_curves(tmp_path)
    assert list(curves) == ["lr=0.1", "lr=0.2"]
    assert curves["lr=0.1"] == Curve([9, 19], [1.5, 2.75], [-9.0, -6.0], [pytest.approx(2**0.5), 0.0])
    assert curves["lr=0.2"].elbo == [-4.0, -3.0]


def test_a_resumed_run_is_drawn_whole(tmp_path):
    first = [{"step": step, "seconds": step / 10, "train/elbo": -step} for step in (10, 20, 30)]
    second = [{"step": step, "seconds": 1 + step / 10, "train/elbo": -step} for step in (20, 30, 40)]
    write(tmp_path / "version_0", first)
    write(tmp_path / "version_1", second, ckpt_path="elsewhere/version_0/checkpoints/last.ckpt")
    curve = read_curves(tmp_path)[""]
    assert curve.steps == [10, 20, 30, 40]
    assert curve.seconds == [1.0, 4.0, 5.0, 6.0]


def test_a_short_runs_line_is_not_cut_off(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr("dvae.report.curves.save_figure", lambda figure, path: figures.append(figure) or path)
    short = Curve(list(range(10)), list(map(float, range(10))), [-400.0 + 20 * k for k in range(10)], [0.0] * 10)
    long = Curve(list(range(600)), list(map(float, range(600))), [-110.0 - 500 * 0.8**k for k in range(600)], [1.0] * 600)
    plot_training({"short": short, "long": long}, tmp_path / "x.png")
    (figure,) = figures
    assert isinstance(figure, Figure)
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < -400
    assert top > -109
    assert len(figure.axes[0].collections) == 1  # the band


def test_a_lines_end_is_drawn_whatever_the_runs_length(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("dvae.report.curves.save_figure", lambda figure, path: figures.append(figure) or path)
    for length in (1, 599, 899):
        values = list(map(float, range(length)))
        plot_training({"run": Curve(list(range(length)), values, values, [0.0] * length)}, tmp_path / "x.png")
        for axis in figures[-1].axes:
            assert axis.lines[0].get_xdata()[-1] > length - 1.5


def test_replicas_of_a_run_in_python_have_a_spread_too(tmp_path):
    folder = write(tmp_path / "version_0", [{"step": 9, "seconds": 1.0, "train/elbo": -9, **elbo(-10, -8)}])
    (folder / "config.yaml").unlink()
    assert read_curves(tmp_path)[""] == Curve([9], [1.0], [-9.0], [pytest.approx(2**0.5)])


def test_curves_need_a_run(refused, tmp_path):
    assert "must be a folder in which dvae fit logged train/elbo" in refused("curves", str(tmp_path))


def test_curves_of_a_run(fit, folder, capsys):
    assert fit("--name=r", "--replicas=2", steps=30) == 0
    capsys.readouterr()
    assert main(["curves", "runs/r", "--levels={published: -5}"]) == 0
    assert "│ r │    30 │" in capsys.readouterr().out
    assert Path("curves.png").stat().st_size > 5000


def test_labels_tell_runs_apart():
    best = "version_0/checkpoints/best.ckpt"
    assert labels([Path(f"runs/a/{best}"), Path(f"runs/compare/b/version_3/{best}")]) == ["a", "b"]
    assert labels([Path(f"one/runs/a/{best}"), Path(f"two/runs/a/{best}")]) == ["one/runs/a", "two/runs/a"]
    assert labels([Path(f"runs/a/{best}"), Path("runs/a/version_0/checkpoints/last.ckpt")]) == ["best.ckpt", "last.ckpt"]


def test_a_level_is_reached_by_the_mean_of_the_updates_before(tmp_path, capsys):
    rows = [{"step": step, "seconds": step / 100, "train/elbo": -200 + step / 100} for step in range(199, 20000, 200)]
    rows[3]["train/elbo"] = 0.0  # what a single log says is not it
    path = write(tmp_path / "run", rows)
    curve = read_curves(path)[""]
    # A line's mean over the 3,000 updates before is its value 1,400 updates ago, for it is logged every 200.
    assert reached(curve, -100) == (11600, 115.99)
    assert reached(curve, 10) is None
    assert main(["curves", str(path), "--levels", "[-100, 10]", "--out", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out
    assert "11,600, 116 s" in printed
    assert "not yet" in printed


def test_a_run_whose_start_is_missing_has_to_log_as_much_first():
    steps = list(range(100_199, 110_000, 200))
    curve = Curve(steps, [1.0] * len(steps), [-99.0] + [-120.0] * (len(steps) - 1), [0.0] * len(steps))
    assert reached(curve, -100) is None
    assert reached(curve, -121) == (103_000, 1.0)


def test_an_early_value_far_off_does_not_count_later():
    curve = Curve(list(range(199, 9000, 200)), [1.0] * 45, [-1e20] + [-50.0] * 44, [0.0] * 45)
    assert reached(curve, -40) is None
    assert reached(curve, -60) == (3200, 1.0)


def test_a_run_that_logged_nothing_finite_is_named(tmp_path, capsys):
    path = write(tmp_path / "run", [{"step": 9, "train/elbo": math.nan}, {"step": 19, "train/elbo": math.nan}])
    assert main(["curves", str(path), "--out", str(tmp_path / "x.png")]) == 1
    assert "must have logged train/elbo as a finite number" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_run_that_is_shorter_than_the_mean_has_not_reached_a_level():
    steps = list(range(199, 2800, 200))
    assert reached(Curve(steps, [1.0] * len(steps), [-1.0] * len(steps), [0.0] * len(steps)), -5) is None


def test_the_end_of_a_run_is_the_last_twentieth_of_each_replica(tmp_path, capsys):
    rows = [{"step": step, "seconds": float(step), **elbo(-100.0, -100.0, -100.0)} for step in range(100)]
    for row in rows[95:]:
        row.update(elbo(-10.0, -12.0, -14.0))
    for row in rows:
        row["train/elbo/3"] = -1000.0 if row["step"] < 98 else math.nan  # this one failed
    for row in rows:
        row["train/elbo"] = -50.0
    path = write(tmp_path / "run", rows, replicas=4)
    assert endings(path) == {"": [-10.0, -12.0, -14.0]}
    assert main(["curves", str(path), "--out", str(tmp_path / "x.png")]) == 0
    assert "-12.00 │       1.15" in capsys.readouterr().out
