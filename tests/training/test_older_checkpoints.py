"""Checkpoints that version 0.1.0 wrote: they load, evaluate to its figures, and resume to where it would have ended.

``checkpoints/`` holds three runs of 57 steps with their configs, and what 0.1.0 measured: the evaluation of each, and sums over all
tensors after a resumption to step 100.
"""

import json
from pathlib import Path

import pytest
import torch

import dvae
from dvae.cli import main
from dvae.config import MOVED, current_path, import_class, public_path
from dvae.training.checkpoints import Checkpoint

FOLDER = Path(__file__).parent / "checkpoints"
FIGURES = json.loads((FOLDER / "figures.json").read_text())


@pytest.mark.parametrize("name", FIGURES)
def test_it_evaluates_to_the_same_figures(name):
    checkpoint = Checkpoint.open(FOLDER / f"{name}.ckpt")
    for replica, expected in zip(checkpoint.replicas, FIGURES[name]["evaluate"], strict=True):
        result = dvae.evaluate(checkpoint, FOLDER / "images.npz", num_samples=20, num_draws=20, replica=replica).as_dict()
        for key, value in expected.items():
            assert result[key] == pytest.approx(value, rel=1e-5), key


@pytest.mark.parametrize("name", FIGURES)
def test_it_resumes_to_where_its_own_version_would_have_ended(name, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER)
    flags = ["--data", "ArrayData", "--data.train", "images.npz", "--data.batch_size", "10", "--data.eval_batch_size", "5"]
    flags += ["--model.num_pixels", "16", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    flags += ["--trainer.log_every_n_steps", "10", "--trainer.val_check_interval", "30", "--trainer.max_steps", "100"]
    assert (
        main(["fit", "--config", f"{name}.yaml", *flags, "--runs", str(tmp_path), "--name", name, "--ckpt_path", f"{name}.ckpt"])
        == 0
    )
    content = Checkpoint.open(next(tmp_path.rglob("last.ckpt"))).content
    sums = {key: tensor.double().sum().item() for key, tensor in content["state_dict"].items() if tensor.is_floating_point()}
    new = {key for key in sums if key.rsplit(".", 1)[-1] == "_beta"}  # what models hold since then
    assert {key: sums[key] for key in sums if key not in new} == pytest.approx(FIGURES[name]["resumed_sums"], rel=1e-4, abs=1e-5)
    assert {sums[key] for key in new} == {1.0}
    entries = content["dvae"].get("replicas") or [content["dvae"]]
    assert [entry["train_elbo"] for entry in entries] == pytest.approx(FIGURES[name]["resumed_elbo"], rel=1e-5)


def test_every_class_that_moved_is_found():
    for old, new in MOVED.items():
        assert current_path(old) == new
        cls = import_class(old, object, "class_path")
        assert public_path(cls) == new
    assert dvae.data.ArrayData.__module__ != "dvae.data"
    assert public_path(dvae.data.ArrayData) == "dvae.data.ArrayData"
    assert public_path(dvae.networks.MLP) == "dvae.networks.MLP"
    assert torch.nn.Linear.__module__ != public_path(torch.nn.Linear)
