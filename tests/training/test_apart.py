"""Replicas under several processes: each trains its share of the models, and the run is that of one process."""

import csv
import json
import signal
import time
from types import SimpleNamespace

import apart
import pytest
import torch
from processes import ROOT, assert_identical, assert_same_run, finish, fit_arguments, newest, start
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy

from dvae.cli import main
from dvae.errors import InputError
from dvae.training.checkpoints import load_model

HALF = 11  # between logs, validations and the ends of epochs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs on two processes (2/NAME), and on one (1/NAME); and what the two processes printed."""
    folder = tmp_path_factory.mktemp("apart")
    # What one process leaves for two.
    apart.fit("sweep", folder / "1" / "half", steps=HALF)
    jobs = [("fit", {"name": name, "folder": f"{folder}/2/{name}"}) for name in apart.SWEEPS]
    jobs.append(("fit", {"name": "sweep", "folder": f"{folder}/2/half", "steps": HALF}))
    for half in ("1", "2"):
        rest = {"folder": f"{folder}/2/rest of {half}", "resume": f"{folder}/{half}/half/end.ckpt"}
        jobs.append(("fit", {"name": "sweep", **rest}))
    jobs.append(("validate", {"name": "three", "folder": f"{folder}/2/validated", "checkpoint": f"{folder}/2/three/end.ckpt"}))
    (folder / "jobs.json").write_text(json.dumps([(kind, {**job, "devices": 2}) for kind, job in jobs]))
    status, output, errors = finish(start([ROOT / "tests" / "training" / "apart.py", folder / "jobs.json"], folder))
    assert status == 0, errors[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.showwarning", lambda *_: None)
        for name in apart.SWEEPS:
            apart.fit(name, folder / "1" / name)
        apart.fit("sweep", folder / "1" / "rest of 2", resume=folder / "2" / "half" / "end.ckpt")
        apart.validate("three", folder / "1" / "validated", folder / "2" / "three" / "end.ckpt")
    return SimpleNamespace(folder=folder, output=output, errors=errors)


def content(path):
    """A checkpoint but for the paths of the run that wrote it."""
    checkpoint = torch.load(path, weights_only=True)
    for state in checkpoint["callbacks"].values():
        for name in [name for name in state if "path" in name or name in ("dirpath", "best_k_models")]:
            del state[name]
    for entry in checkpoint["dvae"]["replicas"]:
        entry["class_path"] = entry["class_path"].replace("__main__.", "apart.")
    return checkpoint


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [pytest.param("sweep", marks=pytest.mark.slow), "three", "two", "own loader", "a process fails"])
def test_the_run_of_two_processes_is_that_of_one(runs, name):
    """Bit for bit in float64: the whole checkpoint, all figures, pictures."""
    one, two = (runs.folder / processes / name for processes in "12")
    for file in ("end.ckpt", "best.ckpt"):
        assert_identical(content(one / file), content(two / file), file)
        assert (two / file).stat().st_size < 1.3 * (one / file).stat().st_size
    assert rows(one / "metrics.csv") == rows(two / "metrics.csv")
    for picture in ("samples.png", "reconstructions.png"):
        assert (one / picture).read_bytes() == (two / picture).read_bytes()


def test_the_compared_runs_have_something_to_compare(runs):
    """Different models, that move, with running sums, different rates, validations and logs."""
    checkpoint = torch.load(runs.folder / "2" / "sweep" / "end.ckpt", weights_only=True)
    half = torch.load(runs.folder / "2" / "half" / "end.ckpt", weights_only=True)
    logits = [checkpoint["state_dict"][f"models.{index}.prior.logits"] for index in range(4)]
    assert all(not torch.equal(logits[a], logits[b]) for a in range(4) for b in range(a))
    assert all(not torch.equal(half["state_dict"][f"models.{r}.prior.logits"], logits[r]) for r in range(4))
    assert logits[0].dtype == torch.float64
    rates = [group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]]
    assert len(rates) == 8
    assert len(set(rates)) == 2
    assert half["dvae"]["num_running"] == 1
    assert half["dvae"]["running"]["elbo"].shape == (4,)
    figures = rows(runs.folder / "2" / "sweep" / "metrics.csv")
    assert sum(row["train/elbo/3"] != "" for row in figures) == 4
    assert sum(row["val/elbo_std_error"] != "" for row in figures) == 3
    assert sum(row["val/log_variance_encoder"] != "" for row in figures) == 3
    best = next(state for name, state in checkpoint["callbacks"].items() if "BestCheckpoint" in name)
    means = [float(row["val/elbo"]) for row in figures if row["val/elbo"]]
    assert best["best_model_score"].item() == pytest.approx(max(means))
    each = [[float(row[f"val/elbo/{index}"]) for index in range(4)] for row in figures if row["val/elbo"]]
    assert means == pytest.approx([sum(own) / 4 for own in each])


@pytest.mark.parametrize("run", ["1/rest of 2", "2/rest of 1", "2/rest of 2"])
def test_a_run_resumes_on_any_number_of_processes(runs, run):
    whole, rest = (content(runs.folder / path / "end.ckpt") for path in ("1/sweep", run))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "dvae", "global_step"):
        assert_identical(whole[part], rest[part], f"{run} {part}")
    assert_identical(content(runs.folder / "1/half/end.ckpt"), content(runs.folder / "2/half/end.ckpt"), "half")
    # Resumed from a run that had ended, Lightning (2.6) counts its last epoch twice.
    figures, again = ([{**row, "epoch": ""} for row in rows(runs.folder / path / "metrics.csv")] for path in ("1/sweep", run))
    assert again == [row for row in figures if int(row["step"]) >= HALF]


def test_a_validation_on_two_processes_is_that_of_one(runs):
    one, two = (rows(runs.folder / processes / "validated" / "metrics.csv") for processes in "12")
    assert one == two
    last = [row for row in rows(runs.folder / "1" / "three" / "metrics.csv") if row["val/elbo"]][-1]
    assert len({one[0][f"val/elbo/{index}"] for index in range(3)}) == 3
    assert last.keys() >= one[0].keys() - {"epoch", "step"}


def test_replicas_that_fail_are_named_wherever_they_are(runs):
    """Those of the first process all fail at once; in another run all of both do."""
    for index, stop in enumerate((8, 4, 7, 3)):
        named = runs.errors.count(f"replica {index} (seed={index}) stopped at iteration {stop}: its loss became nan")
        assert named == (2 if index < 2 else 1)
    sentence = "every replica has stopped; each was named when it did"
    assert runs.output.count(f"process 0: {sentence}") == runs.output.count(f"process 1: {sentence}") == 1
    assert not (runs.folder / "2" / "all fail" / "end.ckpt").exists()
    figures = [row for row in rows(runs.folder / "2" / "a process fails" / "metrics.csv") if row["val/elbo"]][-1]
    assert float(figures["val/elbo"]) == pytest.approx((float(figures["val/elbo/2"]) + float(figures["val/elbo/3"])) / 2)


# Told in a sentence -----------------------------------------------------------------------------------------------------------


def set_up(strategy, processes, *callbacks, rank=0, replicas=None):
    """Replicas as one of several processes has them, without these."""
    replicas = replicas or apart.two()
    connector = SimpleNamespace(use_distributed_sampler=True)
    replicas._trainer = SimpleNamespace(
        world_size=processes, global_rank=rank, strategy=strategy, callbacks=callbacks, _accelerator_connector=connector
    )
    replicas.setup("fit")
    return replicas


def test_what_processes_cannot_do_is_told():
    with pytest.raises(InputError, match="replicas must be at least as many as processes, 3, got 2"):
        set_up(DDPStrategy(), 3)
    with pytest.raises(InputError, match="replicas need the strategy auto or ddp, got FSDPStrategy"):
        set_up(FSDPStrategy(), 2)
    with pytest.raises(InputError, match="replicas need the strategy auto or ddp, got ddp_spawn"):
        set_up(DDPStrategy(start_method="spawn"), 2)
    with pytest.raises(InputError, match="replicas on several processes cannot have their weights averaged by a callback"):
        set_up(DDPStrategy(), 2, WeightAveraging())
    assert len(set_up(SingleDeviceStrategy("cpu"), 1, WeightAveraging()).models) == 2


def test_replicas_that_a_run_on_several_processes_left_are_not_taken_for_all():
    replicas = set_up(DDPStrategy(), 2, rank=1)
    trainer = replicas.trainer
    assert (len(replicas.models), replicas.global_index(0), trainer._accelerator_connector.use_distributed_sampler) == (1, 1, False)
    replicas.teardown("fit")
    assert trainer._accelerator_connector.use_distributed_sampler
    assert "configure_ddp" not in vars(trainer.strategy)
    set_up(DDPStrategy(), 2, rank=1, replicas=replicas)  # again on as many processes
    with pytest.raises(InputError, match=r"replicas must be made anew, got those that an earlier run left in this process, \[1\]"):
        set_up(SingleDeviceStrategy("cpu"), 1, replicas=replicas)


# From the shell ---------------------------------------------------------------------------------------------------------------

END = """
import os
import time

import pytorch_lightning as pl


class End(pl.Callback):
    takes_blocks = True

    def __init__(self, at: int, rank: int | None, signum: int):
        self.at, self.rank, self.signum = at, rank, signum

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.rank in (None, trainer.global_rank) and pl_module.iteration == self.at:
            with open("ended", "w") as file:
                file.write(str(time.time()))
            os.kill(os.getpid(), self.signum)
"""
TWO = ["--trainer.strategy=ddp", "--trainer.devices=2"]


@pytest.fixture
def fitted(tmp_path, images, monkeypatch):
    """Runs ``dvae fit`` of four replicas, in this process or with TWO among its flags in two others.

    Returns its status, its errors, and the seconds that it went on after a process had ended.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "end.py").write_text(END)
    flags = ["--data.batch_size=16", "--model.num_latents=16", "--trainer.precision=64-true", "--trainer.log_every_n_steps=3"]
    flags += ["--model.estimator=dvae.estimators.RELAX", "--model.estimator.hidden=16", "--model.val_num_samples=10"]
    flags += ["--trainer.val_check_interval=5", "--trainer.max_steps=24", "--replicas=2", "--sweep={lr: [0.01, 0.001]}"]

    def run(name, *more):
        arguments = fit_arguments(images, tmp_path, *flags, f"--name={name}", *more)
        if "--trainer.devices=2" not in more:
            return main(arguments[2:]), "", 0.0
        status, _, errors = finish(start(arguments, tmp_path), timeout=600 if "--model.compile=true" in more else 200)
        ended = tmp_path / "ended"
        return status, errors, time.time() - float(ended.read_text()) if ended.exists() else 0.0

    return run


def end(at, rank, signum):
    flags = {"at": at, "rank": rank, "signum": int(signum)}
    return ["--trainer.callbacks+=end.End", *(f"--trainer.callbacks.{name}={value}" for name, value in flags.items())]


@pytest.mark.slow
def test_a_run_stopped_and_then_killed_goes_on_exactly(fitted, tmp_path, capsys):
    """On two processes, of which the second is sent SIGTERM and, resumed, killed; the rest on one."""
    assert fitted("whole")[0] == 0
    status, errors, _ = fitted("stopped", *TWO, *end(5, 1, signal.SIGTERM))
    assert status == 128 + signal.SIGTERM, errors[-3000:]
    assert "Traceback" not in errors
    assert errors.count("stopped by SIGTERM at step 10") == errors.count("go on with: dvae fit") == 1
    status, _, seconds = fitted("stopped", *TWO, *end(18, 1, signal.SIGKILL), "--ckpt_path=last")
    assert status != 0
    assert seconds < 30
    last = newest(tmp_path / "runs" / "stopped", "last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 16
    capsys.readouterr()
    assert main(["evaluate", str(last), "--num_samples=5"]) == 0
    assert capsys.readouterr().out.count("0.001") == 3  # two replicas and their mean
    assert main(["extract", str(last), "--replica=3"]) == 0
    assert load_model(last.with_name("last.replica_3.ckpt"))[0].seed == 1
    assert fitted("stopped", "--ckpt_path=last")[0] == 0
    assert_same_run(tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("flags", [[], ["--model.compile=true", "--model.steps_per_execution=4"]])
def test_a_killed_process_ends_the_run(fitted, tmp_path, rank, flags):
    """Whichever it is, the other ends within seconds, and the run goes on exactly on two again."""
    assert fitted("whole", *TWO, *flags)[0] == 0
    status, _, seconds = fitted("killed", *TWO, *flags, *end(16, rank, signal.SIGKILL))
    assert status != 0
    assert seconds < 30
    assert fitted("killed", *TWO, *flags, "--ckpt_path=last")[0] == 0
    assert_same_run(tmp_path / "runs" / "whole", tmp_path / "runs" / "killed")


@pytest.mark.slow
def test_an_interrupt_of_all_processes_saves_and_ends_them(fitted, tmp_path):
    """Ctrl-C reaches both."""
    assert fitted("whole")[0] == 0
    end_both = [
        "--trainer.callbacks+=end.End",
        "--trainer.callbacks.at=13",
        "--trainer.callbacks.rank=null",
        "--trainer.callbacks.signum=2",
    ]
    status, errors, _ = fitted("stopped", *TWO, *end_both)
    assert status == 128 + signal.SIGINT, errors[-3000:]
    assert "Traceback" not in errors
    assert fitted("stopped", *TWO, "--ckpt_path=last")[0] == 0
    assert_same_run(tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped")


@pytest.mark.slow
def test_more_processes_than_replicas_are_told_in_a_sentence(fitted):
    status, errors, _ = fitted(
        "three", *TWO, "--trainer.devices=2", "--replicas=1", "--sweep={lr: [0.01, 0.001]}", "--trainer.devices=3"
    )
    assert status == 1
    assert "Traceback" not in errors
    assert "dvae: error: replicas must be at least as many as processes, 3, got 2" in errors
