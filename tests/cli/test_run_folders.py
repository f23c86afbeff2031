"""Every run leaves a folder of its own, whatever its length, loggers and callbacks."""

import csv
from pathlib import Path

import pytest
import yaml

LOGGER = """
from types import SimpleNamespace

from pytorch_lightning.loggers.logger import Logger

shown = []


class Own(Logger):
    def __init__(self, save_dir: str = "own"):
        super().__init__()
        self.folder = save_dir
        self.experiment = SimpleNamespace()
        self.name, self.version = "own", "1"

    name = version = None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def log_image(self, key, images, step):
        shown.append((key, images[0].shape, step, self.folder))
"""


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_short_run_ends_with_a_validation_and_leaves_everything(fit, folder):
    assert fit("--name=r", steps=30) == 0
    run = folder / "runs" / "r" / "version_0"
    assert files(run) >= {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "samples.png", "config.yaml", "metrics.csv"}
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    logged = [int(row["step"]) for row in rows if row["train/elbo"]]
    assert logged == list(range(2, 30, 3))
    assert [int(row["step"]) for row in rows if row["val/elbo"]] == [29]
    assert [float(row["seconds"]) for row in rows] == sorted(float(row["seconds"]) for row in rows)


def test_intervals_that_are_given_stay(fit, folder):
    assert fit("--name=r", "--trainer.val_check_interval=5", "--trainer.log_every_n_steps=6") == 0
    config = yaml.safe_load((folder / "runs/r/version_0/config.yaml").read_text())
    assert (config["trainer"]["val_check_interval"], config["trainer"]["log_every_n_steps"]) == (5, 6)


def test_a_run_of_epochs_ends_with_a_validation_too(fit, folder):
    assert fit("--name=r", "--trainer.max_epochs=2", steps=5000) == 0
    assert (folder / "runs/r/version_0/checkpoints/best.ckpt").is_file()


def test_a_run_without_a_logger_has_its_folder(fit, folder):
    assert fit("--name=r", "--trainer.logger=false") == 0
    assert fit("--name=r", "--trainer.logger=false") == 0
    for version in ("version_0", "version_1"):
        run = folder / "runs" / "r" / version
        assert files(run) == {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml"}
    assert {path.name for path in folder.iterdir()} == {"runs", "images.npz"}


def test_another_logger_writes_into_the_runs_folder_and_is_shown_the_pictures(fit, folder):
    Path("own_logger.py").write_text(LOGGER)
    assert fit("--name=r", "--trainer.logger=own_logger.Own") == 0
    run = folder / "runs" / "r" / "version_0"
    assert files(run) >= {"checkpoints/best.ckpt", "config.yaml", "metrics.csv", "samples.png"}
    import own_logger

    assert [(key, shape[2], step) for key, shape, step, _ in own_logger.shown] == [("samples", 3, 12), ("reconstructions", 3, 12)]
    assert own_logger.shown[0][3] == "runs/r/version_0/own"


@pytest.mark.parametrize("flag", ["--trainer.callbacks=LearningRateMonitor", "--trainer.callbacks+=LearningRateMonitor"])
def test_the_runs_own_callbacks_stay_beside_a_users(fit, folder, flag):
    assert fit("--name=r", flag) == 0
    run = folder / "runs" / "r" / "version_0"
    assert files(run) >= {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "samples.png", "reconstructions.png"}


def test_a_callback_can_be_left_out_or_replaced(fit, folder):
    last = ["--trainer.callbacks=dvae.training.callbacks.LastCheckpoint", "--trainer.callbacks.every_n_train_steps=4"]
    assert fit("--name=r", "--without=Pictures,VarianceMonitor", *last) == 0
    run = folder / "runs" / "r" / "version_0"
    assert files(run) >= {"checkpoints/last.previous.ckpt"}
    assert not list(run.glob("*.png"))
    assert "log_variance" not in (run / "metrics.csv").read_text()
