"""A checkpoint's arguments hold, or what differs is told."""

import pytest
import torch

from dvae.cli import main
from dvae.training.checkpoints import load_model


def versions(folder, name):
    return sorted(path.name for path in (folder / "runs" / name).glob("version_*"))


def test_flags_that_the_checkpoint_contradicts_are_refused(fit, folder, refused, small):
    assert fit("--name=r", "--model.estimator=REBAR", "--model.estimator.temperature=0.3") == 0
    again = ("fit", *small, "--name=r", "--trainer.max_steps=20", "--ckpt_path=last")
    for flag, value in (("lr", "0.001"), ("phi_lr", "None"), ("weight_decay", "0.0"), ("eps", "1e-08"), ("num_layers", "1")):
        sentence = refused(*again, f"--model.{flag}=3")
        assert f"--model.{flag} is {value} in the checkpoint" in sentence
        assert "got 3" in sentence
        assert "start a new run without --ckpt_path" in sentence
    assert "--model.estimator is dvae.estimators.REBAR in" in refused(*again, "--model.estimator=RELAX")
    assert "--model.estimator.temperature is 0.3 in" in refused(*again, "--model.estimator.temperature=0.5")
    assert "--model.num_layers is 1 in" in refused(*again, "--config=l2")
    assert versions(folder, "r") == ["version_0"]


def test_arguments_that_are_not_given_are_the_checkpoints(fit, folder, small):
    assert fit("--name=r", "--model.estimator=REBAR", "--model.lr=0.02") == 0
    assert main(["fit", *small, "--name=r", "--trainer.max_steps=20", "--ckpt_path=last", "--model.val_num_samples=3"]) == 0
    model, content = load_model(folder / "runs/r/version_1/checkpoints/last.ckpt")
    assert type(model.estimators[0]).__name__ == "REBAR"
    assert (content["global_step"], model.lr, model.val_num_samples) == (20, 0.02, 3)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.02


def test_nothing_left_to_do_is_said_and_leaves_nothing(fit, folder, capsys):
    assert fit("--name=r") == 0
    capsys.readouterr()
    assert fit("--name=r", "--ckpt_path=last") == 0
    assert "nothing left to do: " in capsys.readouterr().out
    assert versions(folder, "r") == ["version_0"]


@pytest.mark.parametrize("flags", [["--model.estimator=LOO"], ["--replicas=2", "--model.estimator=REBAR"]], ids=["one", "two"])
def test_the_model_that_is_measured_is_the_checkpoints(fit, folder, small, capsys, flags):
    assert fit("--name=r", *flags) == 0
    for command in ("validate", "test"):
        assert main([command, *small, "--ckpt_path=runs/r"]) == 0
    assert "test/importance_weighted_bound" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"runs", "images.npz"}
    assert versions(folder, "r") == ["version_0"]


def test_predict_writes_the_codes_that_encode_writes(fit, folder, small, tmp_path):
    import numpy as np

    assert fit("--name=r") == 0
    assert main(["predict", *small, "--ckpt_path=runs/r", "--out=predicted.npz"]) == 0
    assert main(["encode", "runs/r", "--out=encoded.npz"]) == 0
    with np.load("predicted.npz") as first, np.load("encoded.npz") as second:
        assert (first["codes"] == second["codes"]).all()
        assert first["num_bits"] == second["num_bits"] == 4
    assert torch.get_num_threads() == 1
