"""Runs in processes of their own: several at once, killed, interrupted, out of disk."""

import shlex
import signal
from random import Random
from time import sleep

import pytest
import torch
from processes import assert_same_run, done, finish, fit_arguments, start

from dvae.cli import main
from dvae.training.checkpoints import load_model

# Several processes ------------------------------------------------------------------------------------------------------------

# Trains on one or two processes; each leaves what it saw and what it ended with.
SEVERAL = """
import sys

import pytorch_lightning as pl
import torch

import dvae
from dvae.training.callbacks import Pictures, VarianceMonitor


class Recording(dvae.DiscreteVAE):
    def training_step(self, batch, batch_idx):
        self.batches.append(batch.clone())
        super().training_step(batch, batch_idx)

    def noise_stream(self, rank):
        return super().noise_stream(0 if self.share else rank)

    def training_noise(self, batch_size, stream, iteration):
        noise = super().training_noise(batch_size * self.ranks if self.share else batch_size, stream, iteration)
        if self.share:
            noise = [uniforms[..., self.global_rank :: self.ranks, :] for uniforms in noise]
        self.uniforms.append(noise[0].clone())
        return noise

    def _seeded(self, *counters):
        return super()._seeded(*((counters[0], 0, counters[2]) if self.share else counters))


ranks, share, steps, images, out = int(sys.argv[1]), sys.argv[2] == "share", int(sys.argv[3]), sys.argv[4], sys.argv[5]
resume = sys.argv[6] if len(sys.argv) > 6 else None
pl.seed_everything(0)
torch.set_num_threads(1)
estimator = dvae.estimators.RELAX(hidden=7)
model = Recording(estimator, MODEL, phi_warmup_steps=2, gradient_clip_norm=5.0)
model.ranks, model.share, model.batches, model.uniforms = ranks, share, [], []
trainer = pl.Trainer(
    strategy="ddp" if ranks > 1 else "auto",
    devices=ranks,
    accelerator="cpu",
    precision="64-true",
    max_steps=steps,
    val_check_interval=3,
    check_val_every_n_epoch=None,
    log_every_n_steps=2,
    default_root_dir=out,
    logger=pl.loggers.CSVLogger(out, name="log"),
    callbacks=[Pictures(4), VarianceMonitor(4, 2)],
    enable_progress_bar=False,
    enable_model_summary=False,
)
data = dvae.data.ArrayData(images, batch_size=10 // ranks, eval_batch_size=5)
trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
trainer.save_checkpoint(f"{out}/end.ckpt")
state = {"model": model.state_dict(), "optimizer": trainer.optimizers[0].state_dict()["state"]}
torch.save({**state, "batches": model.batches, "noise": model.uniforms}, f"{out}/rank{trainer.global_rank}.pt")
"""


DENSE = "num_pixels=16, num_latents=4, num_layers=2"
NETWORK = "{{'class_path': 'dvae.networks.Residual{}', 'init_args': {{'channels': 4, 'blocks': 1, 'stride': 2}}}}"
GRID = f"{NETWORK.format('Encoder')}, {NETWORK.format('Decoder')}, image_shape=(1, 4, 4), num_latents=8"


def several(tmp_path, name, *arguments, model=DENSE):
    script = tmp_path / "several.py"
    script.write_text(SEVERAL.replace("MODEL", model))
    folder = tmp_path / name
    folder.mkdir()
    ranks, share, steps, images, *more = arguments
    done([script, ranks, share, steps, images, folder, *more], tmp_path)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


def tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree.double()
    elif isinstance(tree, (dict, list)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(part)


def largest_difference(first, second):
    pairs = zip(tensors(first), tensors(second), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


SEVERAL_FLAGS = ["--trainer.strategy=ddp", "--trainer.devices=2"]


@pytest.mark.slow
def test_fit_on_two_processes_makes_one_run(tmp_path, images):
    several = [*SEVERAL_FLAGS, "--trainer.max_steps=12", "--trainer.val_check_interval=4"]
    output = done(fit_arguments(images, tmp_path, *several), tmp_path)
    assert output.count("trained for 12 updates") == 1
    assert [path.name for path in (tmp_path / "runs" / "run").iterdir()] == ["version_0"]
    done(fit_arguments(images, tmp_path, *several, "--trainer.max_steps=16", "--ckpt_path=last"), tmp_path)
    content = torch.load(tmp_path / "runs" / "run" / "version_1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["dvae"]["iteration"] == 16


@pytest.mark.slow
def test_two_processes_stay_equal_on_different_data_and_noise_and_resume(tmp_path, images):
    first, second = several(tmp_path, "whole", 2, "own", 14, images)
    for part in ("model", "optimizer"):
        assert len(list(tensors(first[part]))) > 10
        assert largest_difference(first[part], second[part]) == 0
    assert all(not torch.equal(a, b) for a, b in zip(first["noise"], second["noise"], strict=True))
    # Four batches of 5 are one rank's share of the 40 images.
    assert len(torch.cat([*first["batches"][:4], *second["batches"][:4]])) == 40
    assert all(not torch.equal(a, b) for a, b in zip(first["batches"], second["batches"], strict=True))
    assert len(list((tmp_path / "whole").rglob("end.ckpt"))) == 1
    assert len(list((tmp_path / "whole").rglob("metrics.csv"))) == 1

    several(tmp_path, "half", 2, "own", 6, images)
    resumed = several(tmp_path, "rest", 2, "own", 14, images, tmp_path / "half" / "end.ckpt")
    for whole, rest in zip((first, second), resumed, strict=True):
        assert largest_difference([whole["model"], whole["optimizer"]], [rest["model"], rest["optimizer"]]) == 0


@pytest.mark.slow  # test_apart.py has two processes in every run of the suite
@pytest.mark.parametrize("model", [DENSE, GRID], ids=["dense", "grid"])
def test_two_processes_equal_one_with_the_combined_batch(tmp_path, images, model):
    """With the same noise for the same images; in float64, so that only the order of sums differs."""
    first, second = several(tmp_path, "two", 2, "share", 12, images, model=model)
    (alone,) = several(tmp_path, "one", 1, "share", 12, images, model=model)
    assert largest_difference([first["model"], first["optimizer"]], [second["model"], second["optimizer"]]) == 0
    difference = largest_difference([first["model"], first["optimizer"]], [alone["model"], alone["optimizer"]])
    print(f"largest difference: {difference:.1e}")
    assert difference < 1e-9


# Checkpoints ------------------------------------------------------------------------------------------------------------------


def failed(arguments, folder):
    """The one sentence in which a command fails."""
    status, _, errors = finish(start(arguments, folder))
    assert status == 1
    assert "Traceback" not in errors
    (sentence,) = [line for line in errors.splitlines() if line.startswith("dvae: error: ")]
    return sentence


def test_a_damaged_last_checkpoint_is_told_with_the_command_that_goes_on_from_the_one_before(tmp_path, images, capsys):
    arguments = fit_arguments(images, tmp_path, "--trainer.max_steps=6")[2:]
    assert main(arguments) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    (previous,) = tmp_path.rglob("last.previous.ckpt")
    assert [torch.load(path, weights_only=True)["global_step"] for path in (previous, last)] == [5, 6]  # an epoch ends at 4
    last.write_bytes(last.read_bytes()[:-1000])
    assert main([*arguments, "--ckpt_path", "last"]) == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"checkpoint {last} is damaged" in sentence
    _, command = sentence.split("the one before it is whole, go on from it with: ")
    program, *resume = shlex.split(command)
    assert program == "dvae"
    assert main(resume) == 0
    assert torch.load(tmp_path / "runs/run/version_1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    previous.write_bytes(b"")
    assert main([*arguments, "--ckpt_path", str(last)]) == 1
    assert "the one before" not in capsys.readouterr().err


FULL = """
import resource

import pytorch_lightning as pl


class Full(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
"""


def test_a_full_disk_stops_training_and_keeps_the_checkpoint_before(tmp_path, images):
    (tmp_path / "full.py").write_text(FULL)
    flags = ["--trainer.max_steps=12", "--trainer.limit_val_batches=0"]
    sentence = failed(fit_arguments(images, tmp_path, *flags, "--trainer.callbacks+=full.Full"), tmp_path)
    (last,) = tmp_path.rglob("last.ckpt")
    assert f"cannot write {last}: File too large" in sentence
    assert load_model(last)[1]["global_step"] == 5  # an epoch ends at 4
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt"}
    assert main(fit_arguments(images, tmp_path, *flags, "--ckpt_path=last")[2:]) == 0


# Killed and interrupted -------------------------------------------------------------------------------------------------------

SLOW = """
import time

import pytorch_lightning as pl


class Slow(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.01)
"""


def slow_arguments(images, tmp_path, *more):
    """A run whose epochs, logs, validations and checkpoints fall on different steps."""
    (tmp_path / "slow.py").write_text(SLOW)
    flags = [
        "--data.batch_size=6",
        "--trainer.log_every_n_steps=3",
        "--trainer.val_check_interval=5",
        "--trainer.callbacks+=slow.Slow",
    ]
    return fit_arguments(images, tmp_path, *flags, *more)


def resume_flags(folder):
    return ["--ckpt_path=last"] if list(folder.rglob("last.ckpt")) else []


@pytest.mark.parametrize(
    ("kills", "model"),
    [
        pytest.param(1, [], marks=pytest.mark.slow),
        (1, ["--model.steps_per_execution=4", "--replicas=3"]),
        pytest.param(12, [], marks=pytest.mark.slow),
        pytest.param(12, ["--model.steps_per_execution=4", "--model.compile=true"], marks=pytest.mark.slow),
        pytest.param(12, ["--model.steps_per_execution=4", "--replicas=3", "--model.compile=true"], marks=pytest.mark.slow),
        pytest.param(12, ["--model.accumulate_grad_batches=2", "--model.num_layers=2"], marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_ends_as_one_never_killed(tmp_path, images, monkeypatch, kills, model):
    monkeypatch.chdir(tmp_path)
    scheduler = "{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 1000}}"
    flags = ["--model.estimator=dvae.estimators.NVIL", f"--model.lr_scheduler={scheduler}", "--model.phi_warmup_steps=5", *model]
    arguments = slow_arguments(images, tmp_path, f"--trainer.max_steps={50 * max(kills, 2)}", *flags)
    runs = tmp_path / "runs"
    assert main([*arguments[2:], "--name=whole"]) == 0
    random, survived = Random(kills), 0
    while True:
        versions = len(list(runs.glob("killed/version_*/metrics.csv")))
        process = start([*arguments, "--name=killed", *resume_flags(runs / "killed")], tmp_path)
        if survived == kills:
            break
        # Some while it starts, most while it trains.
        while (
            process.poll() is None and len(list(runs.glob("killed/version_*/metrics.csv"))) == versions and random.random() > 0.01
        ):
            sleep(0.1)
        sleep(random.random())
        process.kill()
        process.communicate()
        survived += process.returncode == -signal.SIGKILL
    status, _, errors = finish(process)
    assert status == 0, errors[-3000:]
    assert_same_run(runs / "whole", runs / "killed")
    print(f"{survived} kills, {len(list(runs.glob('killed/version_*')))} versions")


DIE = """
import os
import signal
from pathlib import Path

import pytorch_lightning as pl


class Die(pl.Callback):
    def __init__(self, function: str, calls: int):
        self.function, self.calls = function, calls

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.iteration == 6:
            owner = Path if self.function == "write_bytes" else os
            original = getattr(owner, self.function)

            def deadly(*arguments):
                if self.function == "write_bytes":
                    original(arguments[0], bytes(arguments[1])[:1000])
                self.calls -= 1
                if self.calls == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments)

            setattr(owner, self.function, deadly)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "calls"), [("write_bytes", 1), ("fsync", 1), ("link", 1), ("replace", 1), ("replace", 2), ("fsync", 2)]
)
def test_a_run_killed_while_it_saves_goes_on_exactly(tmp_path, images, monkeypatch, function, calls):
    """Half written, before it is on the disk, before and after either of the two files gets its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "die.py").write_text(DIE)
    arguments = slow_arguments(images, tmp_path, "--trainer.max_steps=20")
    assert main([*arguments[2:], "--name=whole", "--trainer.callbacks+=slow.Slow"]) == 0
    die = ["--trainer.callbacks+=die.Die", f"--trainer.callbacks.function={function}", f"--trainer.callbacks.calls={calls}"]
    status, _, _ = finish(start([*arguments, "--name=killed", *die], tmp_path))
    assert status == -signal.SIGKILL
    (last,) = (tmp_path / "runs" / "killed").rglob("last.ckpt")
    assert load_model(last)[1]["global_step"] == (8 if (function, calls) == ("fsync", 2) else 4)
    assert main([*arguments[2:], "--name=killed", "--ckpt_path=last"]) == 0
    assert_same_run(tmp_path / "runs" / "whole", tmp_path / "runs" / "killed")


STOP = """
import os

import pytorch_lightning as pl


class Stop(pl.Callback):
    def __init__(self, at: int, signum: int = 2):
        self.at, self.signum = at, signum

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.iteration == self.at:
            os.kill(os.getpid(), self.signum)
"""


@pytest.fixture
def stopped(tmp_path, images, monkeypatch, capsys):
    """Runs to the end, and stopped at an iteration and resumed; returns both folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stop.py").write_text(STOP)

    def run(at, signum, *more):
        arguments = fit_arguments(images, tmp_path, "--data.batch_size=6", "--trainer.log_every_n_steps=3", *more)[2:]
        assert main([*arguments, "--name=whole"]) == 0
        stop = ["--trainer.callbacks+=stop.Stop", f"--trainer.callbacks.at={at}", f"--trainer.callbacks.signum={int(signum)}"]
        assert main([*arguments, "--name=stopped", *stop]) == 128 + signum
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "go on with" in line]
        step = at + 2 if at % 7 == 6 else at + 1  # not at the end of an epoch of 7 batches
        assert f"stopped by {signal.Signals(signum).name} at step {step};" in line
        _, command = line.split("go on with: dvae ")
        resume = shlex.split(command)
        assert resume[-2:] == ["--ckpt_path", "last"]
        assert main([argument for argument in resume if argument not in stop]) == 0
        return tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped"

    return run


# The first step; before and after a validation, a log and the end of an epoch.
@pytest.mark.parametrize("at", [0, 5, 6, *(pytest.param(at, marks=pytest.mark.slow) for at in (4, 7, 8))])
def test_an_interrupted_run_says_how_to_go_on_and_does_so_exactly(stopped, at):
    signum = signal.SIGTERM if at % 2 else signal.SIGINT
    assert_same_run(*stopped(at, signum, "--trainer.max_steps=17", "--trainer.val_check_interval=5"))


def test_a_resumed_run_remembers_its_best_checkpoint(stopped):
    """Without learning, no later validation is better than the first."""
    folders = stopped(11, signal.SIGINT, "--trainer.max_steps=17", "--trainer.val_check_interval=5", "--model.lr=0")
    assert_same_run(*folders)
    best = folders[1] / "version_1" / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["global_step"] == 5


@pytest.mark.parametrize(
    ("signum", "flags"),
    [
        (signal.SIGTERM, []),
        pytest.param(signal.SIGINT, [], marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, SEVERAL_FLAGS, marks=pytest.mark.slow),
    ],
)
def test_a_signal_from_outside_ends_a_process_with_its_status(tmp_path, images, signum, flags):
    arguments = slow_arguments(images, tmp_path, "--trainer.max_steps=100000", "--model.compile=false", *flags)
    process = start(arguments, tmp_path)
    while process.poll() is None and not list(tmp_path.rglob("last.ckpt")):
        sleep(0.05)
    process.send_signal(signum)
    status, _, errors = finish(process, timeout=30)
    assert status == 128 + signum
    assert "Traceback" not in errors
    assert "go on with: dvae fit" in errors
    (last,) = tmp_path.rglob("last.ckpt")
    assert f"at step {load_model(last)[1]['global_step']};" in errors
    assert {path.name for path in last.parent.iterdir()} <= {"best.ckpt", "best.previous.ckpt", "last.ckpt", "last.previous.ckpt"}


def test_a_second_run_leaves_every_file_of_the_first_as_it_is(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = fit_arguments(images, tmp_path, "--trainer.max_steps=8", "--trainer.val_check_interval=4")[2:]

    def content():
        files = [path for path in (tmp_path / "runs" / "run" / "version_0").rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    assert main(arguments) == 0
    before = content()
    assert len(before) >= 8
    assert main(arguments) == 0
    assert main([*arguments, "--ckpt_path=last", "--trainer.max_steps=12"]) == 0
    (best,) = (tmp_path / "runs" / "run" / "version_0").rglob("best.ckpt")
    assert main(["validate", *arguments[1:], f"--ckpt_path={best}"]) == 0
    assert content() == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "images.npz", "callbacks.yaml"}
    assert {path.name for path in (tmp_path / "runs" / "run").iterdir()} == {"version_0", "version_1", "version_2"}
