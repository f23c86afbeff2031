"""Long runs at flat memory: training with logging, validation and checkpoints, and evaluation with many samples."""

import resource
import sys
import types

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae.cli import main


def resident_megabytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


class Watch(pl.Callback):
    """Notes the process's memory at these steps."""

    seen: dict[int, float] = {}

    def __init__(self, steps: list[int]) -> None:
        self.steps = set(steps)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step in self.steps:
            self.seen[trainer.global_step] = resident_megabytes()


@pytest.mark.parametrize("steps", [1500, pytest.param(50_000, marks=pytest.mark.slow)])
def test_training_takes_no_more_memory_late_than_early(steps, tmp_path, tiny_data, monkeypatch, capsys):
    # The command names its callbacks by their import path.
    watching = types.ModuleType("watching")
    watching.Watch = Watch
    monkeypatch.setitem(sys.modules, "watching", watching)
    np.savez(tmp_path / "images.npz", **{name: tiny_data.split(name).numpy() for name in ("train", "valid", "test")})
    Watch.seen.clear()
    arguments = [
        "fit",
        "--data=dvae.data.ArrayData",
        f"--data.train={tmp_path / 'images.npz'}",
        "--data.batch_size=10",
        "--model.num_pixels=16",
        "--model.num_latents=8",
        "--model.estimator=dvae.estimators.RELAX",
        "--model.estimator.hidden=20",
        f"--trainer.max_steps={steps}",
        "--trainer.val_check_interval=1000",
        "--trainer.log_every_n_steps=50",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=watching.Watch",
        f"--trainer.callbacks.steps=[1000, {steps}]",
        f"--runs={tmp_path / 'runs'}",
    ]
    assert main(arguments) == 0
    grown = Watch.seen[steps] - Watch.seen[1000]
    print(f"memory at step 1,000: {Watch.seen[1000]:.0f} MiB, at step {steps:,}: {Watch.seen[steps]:.0f} MiB")
    # A leak of 0.1 MB a step, such as create_graph with backward has, would be 200 at 3,000 steps.
    assert grown < 20 + 0.0005 * steps


def test_evaluation_takes_no_more_memory_with_more_samples():
    images = (torch.rand(200, 784) < 0.3).float()
    model = dvae.DiscreteVAE(dvae.estimators.REBAR(), num_latents=20, seed=0)
    data = dvae.data.ArrayData(images, images[:20], images[:100])
    dvae.evaluate(model, data, num_samples=2000, num_draws=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dvae.evaluate(model, data, num_samples=10_000, num_draws=2)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    )  # 1,000 MB when every chunk left something behind
