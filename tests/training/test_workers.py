"""Workers of one study, in processes of their own."""

import csv
import os
import signal
import time

import numpy as np
import pytest
import torch
from processes import assert_same_run, done, finish, fit_arguments, start

STEPS = 3000  # more than one worker does while another starts


def waited(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    """The other one goes on with its trial, to the same bits as if it had never been stopped."""
    pytest.importorskip("optuna")
    images = tmp_path / "images.npy"
    np.save(images, (torch.rand(50, 16, generator=torch.Generator().manual_seed(0)) < 0.4).float().numpy())
    common = [
        "--model.compile=false",
        f"--trainer.max_steps={STEPS}",
        "--trainer.val_check_interval=200",
        "--trainer.check_val_every_n_epoch=null",
    ]
    arguments = fit_arguments(images, tmp_path, *common, f"--data.valid={images}", "--without=Pictures,VarianceMonitor")
    shared = [
        *arguments,
        "--sweep={lr: [0.01, 0.001]}",
        "--engine=optuna",
        f"--storage=sqlite:///{tmp_path / 'sweep.db'}",
        "--heartbeat=1",
    ]
    places = [tmp_path / "runs" / "run" / f"lr={lr}_seed=0" for lr in (0.01, 0.001)]
    workers = []
    for place in places:
        workers.append(start(shared, tmp_path))
        waited(lambda place=place: list(place.rglob("last.ckpt")))
    assert workers[0].poll() is None
    os.killpg(workers[0].pid, signal.SIGKILL)
    workers[0].communicate()
    status, output, errors = finish(workers[1], timeout=300)
    assert status == 0, errors[-3000:]
    assert "which goes on" in output
    with (tmp_path / "runs" / "run" / "sweep.csv").open(newline="") as file:
        assert [(row["lr"], row["trial"]) for row in csv.DictReader(file)] == [("0.01", "complete"), ("0.001", "complete")]
    assert [len(list(place.glob("version_*"))) for place in places] == [2, 1]
    done([*arguments, "--model.lr=0.01", "--name=whole"], tmp_path)
    assert_same_run(tmp_path / "runs" / "whole", places[0])
