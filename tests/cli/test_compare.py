"""A comparison is runs of ``dvae fit`` and figures of ``dvae evaluate``, in one command that goes on where it was stopped."""

import json
import signal
from pathlib import Path
from statistics import fmean, stdev

import pytest

from dvae.cli import main
from dvae.cli.comparison import choose
from dvae.report.curves import Curve, joined
from dvae.training.checkpoints import load_model

MODEL = ("--model.num_pixels=16", "--model.num_latents=4", "--model.compile=false")
QUICK = ("--num_samples=3", "--num_draws=20")

STOPPER = """
import os
from pathlib import Path

import pytorch_lightning as pl


class Stop(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 8 and Path("stop").exists() and "LOO" in trainer.log_dir:
            Path("stop").unlink()
            os.kill(os.getpid(), 15)
"""


@pytest.fixture
def compare(folder, small):
    """Compares estimators with small models; returns the exit status."""

    def run(estimators: str, *flags: str, steps: int = 12) -> int:
        quick = (*QUICK, "--without=Pictures,VarianceMonitor")
        return main(["compare", f"--estimators={estimators}", f"--max_steps={steps}", *quick, *small, *MODEL, *flags])

    return run


def figures(folder):
    return json.loads((folder / "figures.json").read_text())["rows"]


def runs(folder):
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("metrics.csv"))


def test_rows_are_means_over_seeds_of_what_evaluate_finds(compare, capsys):
    assert compare("[REBAR, LOO(num_samples=3)]", "--seeds=2", "--name=c") == 0
    table = capsys.readouterr().out
    folder = Path("runs/compare/c/version_0")
    rows = figures(folder)
    assert [row["estimator"] for row in rows] == ["REBAR", "LOO(num_samples=3)"]
    assert runs(folder) == ["LOO_num_samples=3/version_0", "REBAR/version_0"]
    for row, name in zip(rows, ("REBAR", "LOO_num_samples=3"), strict=True):
        assert main(["evaluate", str(folder / name), "--json=e.json", *QUICK]) == 0
        models = json.loads(Path("e.json").read_text())
        assert [model["elbo"] for model in models] == [model["elbo"] for model in row["models"]]
        for figure in ("train_elbo", "log_variance_encoder"):
            values = [model[figure] for model in models]
            assert row[figure] == pytest.approx({"mean": fmean(values), "standard_error": stdev(values) / 2**0.5})
        elbo, bound = row["elbo"], row["importance_weighted_bound"]
        assert f"{elbo['mean']:.2f}±{elbo['standard_error']:.2f}" in table
        assert f"{bound['mean']:.2f}±{bound['standard_error']:.2f}" in table
        assert row["seconds"] > 0
    assert "standard errors: over 2 seeds" in table
    assert (folder / "curves.png").stat().st_size > 5000


def test_of_one_seed_the_errors_are_over_examples(compare, capsys):
    assert compare("LOO", "--seeds=1", "--name=c", "--out=there") == 0
    assert "one seed: standard errors over examples" in capsys.readouterr().out
    (row,) = figures(Path("there"))
    assert row["standard_errors_over"] == "examples"
    assert row["elbo"] == row["models"][0]["elbo"]
    assert row["train_elbo"]["standard_error"] is None
    assert Path("there/curves.png").is_file()


def test_a_sweep_has_a_row_for_each_setting(compare):
    assert compare("[LOO, REINFORCE]", "--seeds=1", "--sweep={lr: [0.001, 0.02]}", "--name=c") == 0
    rows = figures(Path("runs/compare/c/version_0"))
    assert [(row["estimator"], row["setting"]["lr"]) for row in rows] == [
        ("LOO", 0.001),
        ("LOO", 0.02),
        ("REINFORCE", 0.001),
        ("REINFORCE", 0.02),
    ]
    assert len({row["elbo"]["mean"] for row in rows}) == 4
    model, _ = load_model("runs/compare/c/version_0/LOO", replica=1)
    assert model.lr == 0.02


def test_a_stopped_comparison_goes_on_and_ends_where_it_would_have(compare, folder, capsys):
    Path("stopper.py").write_text(STOPPER)
    flags = ("--seeds=2", "--trainer.callbacks=stopper.Stop")
    Path("stop").touch()
    assert compare("LOO", *flags, "--name=stopped") == 128 + signal.SIGTERM
    told = capsys.readouterr().err
    assert "stopped by SIGTERM at step " in told
    assert "; go on with: dvae compare --estimators=LOO" in told
    assert compare("LOO", *flags, "--name=stopped") == 0
    place = folder / "runs/compare/stopped/version_0"
    assert runs(place) == ["LOO/version_0", "LOO/version_1"]
    assert compare("LOO", *flags, "--name=whole") == 0
    keys = ("estimator", "elbo", "train_elbo", "importance_weighted_bound", "log_variance_logits")
    stopped, whole = (
        [[row[key] for key in keys] for row in figures(folder / f"runs/compare/{name}/version_0")] for name in ("stopped", "whole")
    )
    assert stopped == whole


def test_what_is_done_is_not_done_again_and_other_arguments_are_another_comparison(compare, folder):
    place = folder / "runs/compare/c"
    assert compare("[LOO]", "--seeds=2", "--name=c") == 0
    before = figures(place / "version_0")
    assert compare("[LOO, REINFORCE]", "--seeds=2", "--name=c") == 0
    assert figures(place / "version_0")[0] == before[0]
    assert runs(place) == ["version_0/LOO/version_0", "version_0/REINFORCE/version_0"]
    assert compare("[LOO]", "--seeds=2", "--name=c", "--model.lr=0.02") == 0
    assert runs(place / "version_1") == ["LOO/version_0"]
    assert figures(place / "version_1") != before


def test_what_cannot_be_replicas_is_trained_one_after_the_other(compare, folder, fit, capsys):
    optimizer = "--model.optimizer={class_path: torch.optim.RMSprop}"
    assert compare("[LOO]", "--seeds=2", "--name=c", optimizer, "--sweep={lr: [0.01]}") == 0
    assert (
        "LOO: one run after the other, for as replicas it cannot be trained: replicas are trained with Adam"
        in capsys.readouterr().err
    )
    (row,) = figures(folder / "runs/compare/c/version_0")
    assert fit("--name=r", optimizer, "--model.estimator=LOO", "--seed_everything=1", "--data.seed=1", "--model.lr=0.01") == 0
    assert load_model("runs/r", trust=True)[1]["dvae"]["train_elbo"] == row["models"][1]["train_elbo"]


def test_an_estimator_that_fails_is_told_and_has_no_figures(compare, folder, capsys):
    assert compare("[LOO]", "--seeds=1", "--name=c", "--model.lr=1e38", steps=40) == 1
    told = capsys.readouterr()
    assert "LOO: the loss became nan" in told.err
    assert "failed" in told.out
    (row,) = figures(folder / "runs/compare/c/version_0")
    assert row["elbo"] is None
    assert "the loss became nan" in row["models"][0]["failure"]


def test_a_replica_that_stopped_is_told_and_left_out(compare, folder, capsys):
    assert compare("[LOO]", "--seeds=2", "--name=c", "--sweep={lr: [0.01, 1e38]}") == 1
    assert "dvae: LOO: replica 3 stopped at iteration 1, for its loss was not finite" in capsys.readouterr().err
    sound, stopped = figures(folder / "runs/compare/c/version_0")
    assert sound["elbo"]["mean"] < 0
    assert stopped["elbo"] is None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--estimators=[LOO, RELAXX]"], "got RELAXX; did you mean RELAX?"),
        (["--estimators=[LOO(num_sample=4)]"], "LOO has no argument num_sample; did you mean num_samples?"),
        (["--estimators=[LOO(num_samples=0)]"], "cannot make LOO(num_samples=0): num_samples must be at least 2"),
        (["--estimators=[LOO(4)]"], "with arguments as in LOO(num_samples=4)"),
        (["--estimators=[nowhere.Mine]"], "cannot import 'nowhere.Mine'"),
        (["--estimators=LOO", "--seds=2"], "unknown argument --seds; did you mean --seeds?"),
        (["--estimators=LOO", "--seeds=0"], "seeds must be at least 1, got 0"),
        (["--estimators=LOO", "--num_draws=1"], "num_draws must be at least 2, got 1"),
        (["--estimators=LOO", "--replicas=2"], "--seeds says how many"),
        (["--estimators=LOO", "--config=relax"], "--estimators says which"),
        (["--estimators=LOO", "--config={sweep: {lr: [0.1]}}"], "sweep cannot be given to dvae compare: it must be a flag"),
        (["--estimators=LOO", "--ckpt_path=last"], "the same command goes on"),
        (["--estimators=LOO", "--trainer.logger=false"], "must not be false in dvae compare"),
        (["--estimators=LOO", "--trainer.devices=2"], "trains on one device"),
        (["--estimators=LOO", "--max_steps=3", "--trainer.max_steps=4"], "is --trainer.max_steps, which was given too"),
        (["--estimators=LOO", "--sweep={estimator: [LOO]}"], "says which are compared"),
        (["--estimators=LOO", "--model.num_latent=3"], "did you mean --model.num_latents?"),
        (
            ["--estimators=[REINFORCE, RELAX]", "--model.latent=Gaussian"],
            "RELAX is for Bernoulli or Categorical or PlackettLuce latents",
        ),
        (["--estimators=LOO", "--sweep={estimator.temperature: [0.5]}"], "LOO: estimator: dvae.estimators.LOO does not take"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_before_anything_is_trained(flags, sentence, refused, folder, small):
    assert sentence in refused("compare", *small, *MODEL, *flags)
    assert {path.name for path in folder.iterdir()} == {"images.npz"}


def test_a_sweep_over_estimators_is_told_where_to_go(refused, folder, small):
    sentence = refused("fit", *small, *MODEL, "--replicas=2", "--sweep={estimator: [LOO, RELAX]}")
    assert "dvae compare --estimators '[RELAX, REBAR]' trains each in a run of its own" in sentence


def test_an_estimator_with_a_config_of_its_name_is_trained_as_that_says(compare, capsys):
    assert compare("[RELAX(coupled=False)]", "--seeds=2", "--name=c") == 0
    assert (
        "the model itself is not trained in 12 updates, for the first 1000 change its control variate alone"
        in capsys.readouterr().err
    )
    model, _ = load_model("runs/compare/c/version_0/RELAX_coupled=False", replica=0)
    assert (model.phi_warmup_steps, model.estimators[0].config["init_args"]["coupled"]) == (1000, False)
    assert choose("dvae.estimators.reinforce.LOO").label == choose("LOO").label == "LOO"
    assert not [flag for flag in choose("DisARM").flags if "config" in flag]


def test_an_estimator_of_ones_own_is_compared_by_its_import_path(compare, folder):
    text = "import dvae\n\n\nclass Mine(dvae.estimators.LOO):\n    pass\n"
    Path("own_estimator.py").write_text(text)
    assert compare("[own_estimator.Mine, LOO]", "--seeds=1", "--name=c") == 0
    mine, loo = figures(folder / "runs/compare/c/version_0")
    assert (mine["estimator"], mine["elbo"]) == ("own_estimator.Mine", loo["elbo"])


def test_curves_of_runs_one_after_the_other_are_joined():
    first, second = Curve([9, 19], [1.0, 2.0], [-4.0, -3.0], [0.0, 0.0]), Curve([9, 19], [1.5, 3.5], [-6.0, -3.0], [0.0, 0.0])
    curve = joined([first, second])
    assert curve == Curve([9, 19], [2.5, 5.5], [-5.0, -3.0], [pytest.approx(2**0.5), 0.0])


LEVELS = "model: {likelihood: {class_path: dvae.likelihoods.DiscretizedLogistic}"
IMAGES = "data: {class_path: dvae.data.PhotoPatches, init_args: {size: 12, patches: 40, batch_size: 10}}"


@pytest.fixture
def photos(folder):
    """Compares models of small photographs; returns the exit status."""
    pytest.importorskip("vector_quantize_pytorch")
    Path("bits.yaml").write_text(f"{LEVELS}, num_latents: 8, val_num_samples: 2}}\n{IMAGES}\n")
    quantized = "class_path: dvae.QuantizedAutoencoder, init_args: {num_latents: 4, "
    Path("fsq.yaml").write_text(f"{LEVELS}}}}}\n{IMAGES}\n".replace("model: {", f"model: {{{quantized}"))

    def run(*flags: str) -> int:
        quiet = ("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--without=Pictures,VarianceMonitor")
        quiet += ("--without=BestCheckpoint", "--trainer.log_every_n_steps=2")
        return main(["compare", "--config=bits.yaml", "--max_steps=6", "--seeds=2", "--name=c", "--apart", *QUICK, *quiet, *flags])

    return run


def test_a_quantised_code_is_compared_by_rate_and_distortion(photos, capsys):
    assert photos("--estimators=[LOO]", "--variants=[fsq.yaml]") == 0
    folder = Path("runs/compare/c/version_0")
    bits, fsq = figures(folder)
    assert (bits["estimator"], fsq["estimator"]) == ("LOO", "fsq")
    assert bits["bits_per_dimension"]["mean"] > 0
    assert fsq["bits_per_dimension"] is fsq["elbo"] is fsq["log_variance_encoder"] is None
    for row in (bits, fsq):
        assert 0 <= row["rate"]["mean"] <= 16
        assert row["psnr"]["standard_error"] > 0
        assert row["seconds_per_step"] > 0
    assert {"rate_distortion.png", "reconstructions.png"} <= {path.name for path in folder.iterdir()}
    table = capsys.readouterr().out
    assert f"{fsq['psnr']['mean']:.2f}±{fsq['psnr']['standard_error']:.2f}" in table
    before = sorted(folder.rglob("metrics.csv"))
    assert photos("--estimators=[LOO]", "--variants=[fsq.yaml]") == 0
    assert sorted(folder.rglob("metrics.csv")) == before
    assert len(before) == 4


def test_a_variant_may_not_change_how_long_it_is_trained(photos, refused):
    Path("longer.yaml").write_text("trainer: {max_steps: 99}\n")
    sentence = refused("compare", "--variants=[longer.yaml]")
    assert "variants change the model alone, got trainer.max_steps in longer.yaml" in sentence


def test_something_must_be_compared(refused):
    assert "estimators must name at least one, such as '[RELAX, REBAR, LOO]', or variants" in refused("compare")
