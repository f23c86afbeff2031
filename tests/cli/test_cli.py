"""The ``dvae`` command, as a shell would call it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvae.cli import main
from dvae.report.curves import read_curves


@pytest.fixture
def images(tmp_path, tiny_data):
    path = tmp_path / "images.npz"
    np.savez(path, **{name: tiny_data.split(name).numpy() for name in ("train", "valid", "test")})
    return path


def fit_arguments(images, tmp_path, *more):
    return [
        "fit",
        "--data=dvae.data.ArrayData",
        f"--data.train={images}",
        "--data.batch_size=10",
        "--data.eval_batch_size=5",
        "--model.num_pixels=16",
        "--model.num_latents=4",
        "--trainer.max_steps=12",
        "--trainer.val_check_interval=4",
        "--trainer.log_every_n_steps=4",
        "--trainer.accelerator=cpu",
        f"--runs={tmp_path / 'runs'}",
        *more,
    ]


@pytest.fixture
def run(images, tmp_path):
    assert main(fit_arguments(images, tmp_path, "--name=small")) == 0
    return tmp_path / "runs" / "small"


def test_fit_writes_checkpoints_logs_and_pictures(run, capsys):
    version = run / "version_0"
    assert (version / "checkpoints" / "best.ckpt").is_file()
    assert (version / "checkpoints" / "last.ckpt").is_file()
    assert (version / "config.yaml").is_file()
    assert list(version.glob("events.out.tfevents*"))
    header = (version / "metrics.csv").read_text().splitlines()[0].split(",")
    expected = {
        "train/elbo",
        "train/reconstruction",
        "train/kl",
        "train/temperature",
        "train/eta",
        "train/gradient_second_moment",
        "val/elbo",
        "val/importance_weighted_bound",
        "val/log_variance_encoder",
    }
    assert expected <= set(header)
    for name in ("samples", "reconstructions"):
        with Image.open(version / f"{name}.png") as picture:
            assert min(picture.size) > 20


def test_progress_bar_and_checkpoints_can_be_switched_off(images, tmp_path):
    flags = ["--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    assert main(fit_arguments(images, tmp_path, "--name=bare", *flags)) == 0
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
    assert main(fit_arguments(images, tmp_path, "--name=dev", "--trainer.fast_dev_run=true")) == 0


def test_what_lightning_refuses_is_told_with_what_to_use_instead(images, tmp_path, capsys):
    message = failure(fit_arguments(images, tmp_path, "--trainer.gradient_clip_val=1"), capsys)
    assert "Use --model.gradient_clip_norm" in message


def test_the_precision_of_matrix_products_is_set_for_the_run(images, tmp_path):
    assert torch.get_float32_matmul_precision() == "highest"
    assert main(fit_arguments(images, tmp_path, "--matmul_precision=high")) == 0
    assert torch.get_float32_matmul_precision() == "high"
    assert main(fit_arguments(images, tmp_path)) == 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_second_run_gets_a_new_version(run, images, tmp_path):
    before = (run / "version_0" / "metrics.csv").read_text()
    assert main(fit_arguments(images, tmp_path, "--name=small")) == 0
    assert (run / "version_1" / "checkpoints" / "best.ckpt").is_file()
    assert (run / "version_0" / "metrics.csv").read_text() == before


def test_fit_says_how_to_evaluate(images, tmp_path, capsys):
    main(fit_arguments(images, tmp_path))
    output = capsys.readouterr().out
    assert "trained for 12 updates, training ELBO -" in output
    assert "evaluate it with: dvae evaluate " in output


def test_curves_of_runs_are_those_of_their_logs(run, tmp_path, capsys):
    out = tmp_path / "curves.png"
    assert main(["curves", str(run), "--levels={published: -5.5}", f"--out={out}"]) == 0
    table = capsys.readouterr().out
    with (run / "version_0" / "metrics.csv").open() as file:
        logged = [(int(row["step"]), float(row["train/elbo"])) for row in csv.DictReader(file) if row["train/elbo"]]
    assert str(logged[-1][0] + 1) in table
    assert f"{logged[-1][1]:.2f}" in table
    curve = read_curves(run)[""]
    assert list(zip(curve.steps, [round(value, 4) for value in curve.elbo], strict=True)) == [(k, round(v, 4)) for k, v in logged]
    assert curve.seconds == sorted(curve.seconds)
    assert out.stat().st_size > 5000
    assert main(["curves", str(tmp_path / "nowhere")]) == 1
    assert "must be a folder in which dvae fit logged train/elbo" in capsys.readouterr().err


def test_evaluate_needs_nothing_but_the_checkpoint(run, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert main(["evaluate", str(run), "--num_samples=10", f"--json={figures}"]) == 0
    assert "importance-weighted bound, 10 samples" in capsys.readouterr().out
    content = json.loads(figures.read_text())
    assert content["num_examples"] == 10
    assert content["elbo"]["mean"] <= content["importance_weighted_bound"]["mean"]
    assert content["elbo"]["standard_error"] > 0


def test_evaluate_compares_several_checkpoints(run, tmp_path, capsys):
    checkpoints = run / "version_0" / "checkpoints"
    figures = tmp_path / "figures.json"
    paths = [str(checkpoints / "best.ckpt"), str(checkpoints / "last.ckpt")]
    assert main(["evaluate", *paths, "--num_samples=2", f"--json={figures}"]) == 0
    output = capsys.readouterr().out
    assert "best.ckpt" in output
    assert "last.ckpt" in output
    rows = json.loads(figures.read_text())
    assert [row["checkpoint"] for row in rows] == paths
    assert all(row["train_elbo"] < 0 for row in rows)


def test_evaluate_takes_another_data_set_and_split(run, tmp_path):
    path = tmp_path / "other.npy"
    np.save(path, np.ones((7, 16)))
    assert main(["evaluate", str(run), f"--data={path}", "--split=train", "--num_samples=2"]) == 0


def test_sample_and_encode_write_their_files(run, tmp_path):
    assert main(["sample", str(run), f"--out={tmp_path / 'pictures'}", "--num_images=16"]) == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"samples.png", "reconstructions.png"}
    assert main(["encode", str(run), f"--out={tmp_path / 'codes.npz'}"]) == 0
    with np.load(tmp_path / "codes.npz") as file:
        codes = np.unpackbits(file["codes"], axis=1, count=int(file["num_bits"]))
    assert codes.shape == (10, 4)


def test_resume_from_the_last_checkpoint(run, images, tmp_path):
    last = run / "version_0" / "checkpoints" / "last.ckpt"
    assert main(fit_arguments(images, tmp_path, "--name=more", f"--ckpt_path={last}", "--trainer.max_steps=20")) == 0
    content = torch.load(tmp_path / "runs" / "more" / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 20
    assert content["dvae"]["iteration"] == 20


def test_resume_by_the_word_last_takes_the_runs_newest(run, images, tmp_path):
    assert main(fit_arguments(images, tmp_path, "--name=small", "--ckpt_path=last", "--trainer.max_steps=15")) == 0
    content = torch.load(run / "version_1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["dvae"]["iteration"] == 15


def test_resuming_from_what_is_no_checkpoint_is_refused(images, tmp_path, capsys):
    (tmp_path / "text.ckpt").write_text("hello")
    assert "damaged or not a checkpoint" in failure(
        fit_arguments(images, tmp_path, f"--ckpt_path={tmp_path / 'text.ckpt'}"), capsys
    )
    assert "ckpt_path: there is no last.ckpt" in failure(fit_arguments(images, tmp_path, "--ckpt_path=last"), capsys)
    assert not (tmp_path / "runs").exists()


def test_validate_and_test_run(run, images, tmp_path):
    arguments = fit_arguments(images, tmp_path, f"--ckpt_path={run / 'version_0' / 'checkpoints' / 'best.ckpt'}")
    for command in ("validate", "test"):
        assert main([command, *arguments[1:]]) == 0


def test_constructor_arguments_are_flags_and_reach_the_model(images, tmp_path, capsys):
    flags = [
        "--model.estimator=dvae.estimators.RELAX",
        "--model.estimator.hidden=9",
        "--model.kl=analytic",
        "--model.phi_lr=0.02",
        "--model.gradient_clip_norm=3",
    ]
    assert main(fit_arguments(images, tmp_path, "--name=flags", *flags)) == 0
    (path,) = (tmp_path / "runs" / "flags").rglob("last.ckpt")
    saved = torch.load(path, weights_only=True)
    assert saved["hyper_parameters"]["estimator"]["init_args"]["hidden"] == 9
    assert saved["hyper_parameters"]["kl"] == "analytic"
    assert [group["lr"] for group in saved["optimizer_states"][0]["param_groups"]] == [0.001, 0.02]


def test_print_config_and_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "nl1", "--config", "rebar", "--print_config"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "class_path: dvae.estimators.REBAR" in printed
    assert "hidden:" in printed
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    help_text = capsys.readouterr().out
    assert "--model.phi_warmup_steps" in help_text
    assert "the first updates change phi alone" in " ".join(help_text.split())
    assert main(["--help"]) == 0
    assert "certify" in capsys.readouterr().out


def test_certify_passes_reinforce_and_fails_concrete_and_an_own_biased_class(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import dvae\n\n\nclass Half(dvae.GradientEstimator):\n"
        "    def gradient(self, f, q, draw, context):\n        return 0.5 * draw.value[..., None] * q.score(draw.b)\n"
    )
    small = ["--num_problems=2", "--num_samples=5000"]
    assert main(["certify", "dvae.estimators.REINFORCE", *small, "--json=certificate.json"]) == 0
    assert "PASS" in capsys.readouterr().out
    assert json.loads(Path("certificate.json").read_text())["passed"] is True
    assert main(["certify", "dvae.estimators.Concrete", *small]) == 1
    assert "biased (as it declares)" in capsys.readouterr().out
    assert main(["certify", "mine.Half", *small]) == 1
    assert "FAIL: biased, largest" in capsys.readouterr().out
    assert main(["certify", "dvae.estimators.LOO", *small, "--init_args={num_samples: 3}"]) == 0


@pytest.mark.slow
def test_certify_all_tables_the_library_and_writes_it(tmp_path, capsys):
    path = tmp_path / "all.json"
    assert main(["certify", "--all", "--num_problems=4", "--num_samples=10000", f"--json={path}"]) == 0
    output = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert f"{len(found)} of {len(found)} estimators are as they declare" in output
    assert found["RELAX"]["passed"]
    assert not found["ReinMax"]["passed"]


# Bad input ------------------------------------------------------------------------------------------------------------------


def failure(arguments, capsys) -> str:
    """The error of a command that must fail, which must be one line without a traceback."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status not in (0, None)
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_bad_commands_and_checkpoints_end_in_one_sentence(tmp_path, capsys):
    assert "unknown command 'train'; expected one of fit" in failure(["train"], capsys)
    assert "does not exist" in failure(["evaluate", str(tmp_path / "no.ckpt")], capsys)
    (tmp_path / "text.ckpt").write_text("hello")
    assert "damaged or not a checkpoint" in failure(["evaluate", str(tmp_path / "text.ckpt")], capsys)
    assert "cannot import 'dvae.estimators.RELAXX'" in failure(["certify", "dvae.estimators.RELAXX"], capsys)
    assert "estimators must be import paths or out of" in failure(["benchmark", "--estimators=[FOO]"], capsys)
    assert "either an estimator or --all must be given, got neither" in failure(["certify"], capsys)
    assert "estimators must be import paths or out of" in failure(["toy", "--estimators=[FOO]"], capsys)


def test_bad_arguments_of_a_checkpoints_commands(run, tmp_path, capsys):
    path = str(run)
    assert "num_samples must be at least 1, got 0" in failure(["evaluate", path, "--num_samples=0"], capsys)
    assert "split must be one of" in failure(["evaluate", path, "--split=all"], capsys)
    assert "device must be cpu or cuda" in failure(["evaluate", path, "--device=tpu9"], capsys)
    assert "out must be a .npz file" in failure(["encode", path, "--out=codes.txt"], capsys)
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in failure(["sample", path, f"--out={tmp_path / 'file' / 'x'}"], capsys)
    assert "cannot write" in failure(["encode", path, f"--out={tmp_path / 'file' / 'x.npz'}"], capsys)
    assert "cannot write" in failure(["evaluate", path, "--num_samples=2", f"--json={tmp_path / 'file' / 'x.json'}"], capsys)
    assert (tmp_path / "file").read_text() == "in the way"


def test_unknown_names_in_a_config_are_named(images, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    for content, name in (
        ("model:\n  learning_rate: 0.1\n", "learning_rate"),
        ("model:\n  estimator:\n    class_path: dvae.estimators.RELAXX\n", "RELAXX"),
        ("model:\n  estimator:\n    class_path: dvae.estimators.RELAX\n    init_args:\n      width: 3\n", "width"),
        ("trainer: [", "config"),
        ("model:\n  kl: exact\n", "exact"),
    ):
        config.write_text(content)
        assert name in failure(fit_arguments(images, tmp_path, f"--config={config}", "--name=bad"), capsys)
    assert not (tmp_path / "runs" / "bad").exists()


def test_bad_data_in_a_config_is_named(tmp_path, images, capsys):
    for array, message in (
        (np.full((8, 16), 2.0), "[0, 1]"),
        (np.full((8, 16), np.nan), "finite"),
        (np.zeros((0, 16)), "train"),
    ):
        np.savez(tmp_path / "bad.npz", train=array)
        assert message in failure(fit_arguments(tmp_path / "bad.npz", tmp_path), capsys)
    assert "num_pixels must be 16, the values of an example of the data, got 17" in failure(
        fit_arguments(images, tmp_path, "--model.num_pixels=17"), capsys
    )


def test_an_unwritable_folder_is_named_before_training(images, tmp_path, capsys):
    (tmp_path / "runs").write_text("in the way")
    assert "runs: cannot write" in failure(fit_arguments(images, tmp_path), capsys)


def test_a_diverging_run_stops_and_keeps_its_checkpoint(images, tmp_path, capsys):
    """A learning rate of 1e37 overflows within a few steps."""
    arguments = fit_arguments(images, tmp_path, "--name=diverging", "--model.lr=1e37", "--trainer.val_check_interval=1")
    message = failure(arguments, capsys)
    assert "the loss became" in message
    assert "at iteration" in message
    for path in (tmp_path / "runs" / "diverging").rglob("*.ckpt"):
        assert torch.load(path, weights_only=True)["state_dict"]["prior.logits"].isfinite().all()
