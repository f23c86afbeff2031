"""Processes of their own for a test, the runs that they leave, and whether two runs are the same."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]


def start(arguments, folder, **kwargs):
    """A Python process in ``folder`` that finds this checkout's package; it and its children are one group."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **kwargs,
    )


def finish(process, timeout=120):
    """Its exit status, output and errors; a process that does not end is killed with its children and fails the test."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, errors = process.communicate()
        pytest.fail(f"still running after {timeout} s: {output[-1000:]} {errors[-2000:]}")
    return process.returncode, output, errors


def done(arguments, folder):
    status, output, errors = finish(start(arguments, folder))
    assert status == 0, errors[-3000:]
    return output


CALLBACKS = """
trainer:
  callbacks:
    - class_path: dvae.training.callbacks.BestCheckpoint
      init_args: {filename: best, monitor: val/importance_weighted_bound, mode: max, enable_version_counter: false}
    - class_path: dvae.training.callbacks.LastCheckpoint
      init_args: {every_n_train_steps: 4}
    - dvae.training.callbacks.Pictures
    - dvae.training.callbacks.VarianceMonitor
"""


def fit_arguments(images, tmp_path, *more):
    config = tmp_path / "callbacks.yaml"
    config.write_text(CALLBACKS)
    return [
        "-m",
        "dvae",
        "fit",
        f"--config={config}",
        "--data=dvae.data.ArrayData",
        f"--data.train={images}",
        "--data.batch_size=10",
        "--data.eval_batch_size=5",
        "--model.num_pixels=16",
        "--model.num_latents=4",
        "--model.steps_per_execution=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        f"--runs={tmp_path / 'runs'}",
        "--name=run",
        *more,
    ]


def logged(folder):
    """All figures of metrics.csv but its clock by step and name, of all versions of a run; where two have one, both must agree."""
    figures = {}
    for path in sorted(folder.glob("version_*/metrics.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value not in ("", None) and name != "seconds":
                        assert figures.setdefault((int(row["step"]), name), value) == value, (path, row["step"], name)
    return figures


def plotted(folder):
    """The same of TensorBoard's files."""
    figures = {}
    for path in sorted(folder.glob("version_*/events.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                assert figures.setdefault((event.step, name), event.value) == event.value, (path, event.step, name)
    return figures


def newest(folder, name):
    return max(folder.rglob(name), key=lambda path: path.stat().st_mtime)


def assert_same_run(whole, other):
    for name in ("last.ckpt", "best.ckpt"):
        first, second = (torch.load(newest(folder, name), weights_only=True) for folder in (whole, other))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "dvae", "global_step", "epoch"):
            assert_identical(first[part], second[part], f"{name} {part}")
        scores = [[state.get("best_model_score") for state in content["callbacks"].values()] for content in (first, second)]
        assert_identical(*scores, name)
    assert logged(whole) == logged(other)
    assert plotted(whole) == plotted(other)


def assert_identical(first, second, where):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_identical(first[key], second[key], f"{where} {key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_identical(a, b, f"{where} {index}")
    else:
        assert first == second, where
