"""``dvae rl fit``: a run that ends, goes on exactly, and tells what is wrong."""

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

import dvae
from dvae.cli import main
from dvae.cli.rl import COMMANDS
from dvae.rl import load
from dvae.training.checkpoints import read_checkpoint

pytest.importorskip("gymnasium")

TINY = "tests_rl_environments"

ENVIRONMENTS = '''
"""Environments and a callback of a user."""

import os

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl


class Coin(gym.Env):
    """Two steps; the reward is whether the action is the sign that is shown."""

    def __init__(self, render_mode=None, reward=1.0, ends=True, actions=None):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2) if actions is None else gym.spaces.MultiBinary(actions)
        self.render_mode, self.reward, self.ends = render_mode, reward, ends
        self.time, self.sign = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.draw(), {}

    def draw(self):
        self.sign = int(self.np_random.integers(2))
        return np.array([2 * self.sign - 1], np.float32)

    def step(self, action):
        reward, self.time = self.reward * (action == self.sign), self.time + 1
        return self.draw(), reward, self.ends and self.time == 2, False, {}


class Stop(pl.Callback):
    """Sends the process a signal in an update."""

    def __init__(self, signum, step):
        self.signum, self.step = signum, step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)
'''

SMALL = ("--trainer.enable_progress_bar=false", "--model.compile=false")
CARTPOLE = ("rl", "fit", "--data.env=CartPole-v1", "--data.max_episode_steps=20", *SMALL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A user's folder, with environments of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / f"{TINY}.py").write_text(ENVIRONMENTS)
    yield tmp_path
    sys.modules.pop(TINY, None)


def last(folder):
    return sorted(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)[-1]


def assert_same_run(first, second):
    """Whether two runs ended at the same bits: tensors, moments, episodes and where the environments are."""
    one, other = (read_checkpoint(last(folder)) for folder in (first, second))
    assert one["global_step"] == other["global_step"]
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(one["optimizer_states"][0]["state"], other["optimizer_states"][0]["state"], rtol=0, atol=0)
    torch.testing.assert_close(one["Rollouts"], other["Rollouts"], rtol=0, atol=0)
    torch.testing.assert_close(one["dvae"]["episodes"], other["dvae"]["episodes"], rtol=0, atol=0)


def test_a_run_leaves_metrics_and_checkpoints_and_says_what_it_reached(place, capsys):
    assert main([*CARTPOLE, "--model.num_seeds=2", "--model.solved_at=1", "--trainer.max_steps=8", "--name=r"]) == 0
    out = capsys.readouterr().out
    assert "agent 0: mean reward" in out
    assert "agent 1: mean reward" in out
    assert "not solved (mean above 1)" in out  # fewer than 100 episodes
    assert "evaluate it with: dvae rl evaluate runs/r/version_0/checkpoints/best.ckpt" in out
    folder = place / "runs/r/version_0"
    assert "train/reward" in (folder / "metrics.csv").read_text().splitlines()[0]
    assert (folder / "config.yaml").is_file()
    assert list(folder.glob("events.out.tfevents*"))
    model = load(folder / "checkpoints/last.ckpt")
    assert (model.num_seeds, model.iteration, model.agents.mean.shape[-1]) == (2, 8, 4)


def test_a_run_that_goes_on_ends_at_the_same_bits(place):
    steps = ("--data.num_steps=7", "--model.credit=gae", "--model.normalize=true", "--model.estimator=RELAX")
    relax = ("--model.estimator.black_box=true", "--data.rollouts_per_epoch=4", "--data.num_envs=2")
    assert main([*CARTPOLE, *steps, *relax, "--trainer.max_steps=10", "--name=whole"]) == 0
    for end in (3, 4, 10):  # in an epoch, and at the end of one
        flags = ["--ckpt_path=last"] if end > 3 else []
        assert main([*CARTPOLE, *steps, *relax, f"--trainer.max_steps={end}", "--name=parts", *flags]) == 0
    assert_same_run(place / "runs/whole", place / "runs/parts")


def test_a_finished_run_is_nothing_to_do_and_a_longer_one_goes_on(place, capsys):
    assert main([*CARTPOLE, "--model.max_environment_steps=60", "--name=r"]) == 0
    capsys.readouterr()
    again = ("rl", "fit", *SMALL, "--name=r", "--ckpt_path=last")  # the rest is the checkpoint's
    assert main(again) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert main([*again, "--model.max_environment_steps=120"]) == 0
    assert 120 <= min(load(last(place / "runs")).num_steps) < 140
    assert len(list((place / "runs/r").iterdir())) == 2


def test_arguments_that_the_checkpoint_contradicts_are_refused(place, refused):
    assert main([*CARTPOLE, "--trainer.max_steps=2", "--name=r"]) == 0
    again = (*CARTPOLE, "--trainer.max_steps=4", "--name=r", "--ckpt_path=last")
    assert "--model.lr is 0.001 in the checkpoint" in refused(*again, "--model.lr=3")
    assert "--data.num_envs is 1 in the checkpoint" in refused(*again, "--data.num_envs=2")
    assert len(list((place / "runs/r").iterdir())) == 1


def test_where_the_last_checkpoint_is_damaged_the_one_before_it_is_named(place, refused):
    assert main([*CARTPOLE, "--trainer.max_steps=2", "--name=r"]) == 0
    path = last(place / "runs")
    path.with_name("last.previous.ckpt").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:1000])
    sentence = refused(*CARTPOLE, "--trainer.max_steps=4", "--name=r", "--ckpt_path=last")
    assert "go on from it with: dvae rl fit --data.env=CartPole-v1" in sentence
    assert sentence.endswith("last.previous.ckpt")


def test_a_checkpoint_does_not_import_an_environment_of_its_own_unless_trusted(place, refused, capsys):
    assert main([*COIN, "--name=r"]) == 0
    assert "--trust" in capsys.readouterr().out.splitlines()[-1]
    again = ("rl", "fit", *SMALL, "--name=r", "--ckpt_path=last", "--trainer.max_steps=3")
    assert f"names environments outside gymnasium ({TINY}.Coin)" in refused(*again)
    assert main([*again, "--trust"]) == 0
    assert main([*COIN, "--name=r", "--ckpt_path=last", "--trainer.max_steps=4"]) == 0  # which names it itself


def stopped(signum, step):
    """Flags for a checkpoint every 10 updates, and a signal that the process sends itself."""
    last = "{class_path: dvae.training.callbacks.LastCheckpoint, init_args: {every_n_train_steps: 10}}"
    end = f"{{class_path: {TINY}.Stop, init_args: {{signum: {int(signum)}, step: {step}}}}}"
    return f"--trainer.callbacks=[{last}, {end}]"


RUN = (*CARTPOLE, "--trainer.max_steps=20")


def test_a_run_that_is_interrupted_says_how_it_goes_on_and_does_so_exactly(place, capsys):
    assert main([*RUN, "--name=r", stopped(signal.SIGINT, 13)]) == 128 + signal.SIGINT
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("dvae: stopped by SIGINT at step 14; go on with: dvae rl fit --data.env=CartPole-v1 ")
    assert sentence.endswith("--ckpt_path last")
    assert main([*RUN, "--name=r", "--ckpt_path=last"]) == 0
    assert main([*RUN, "--name=whole"]) == 0
    assert_same_run(place / "runs/r", place / "runs/whole")


def test_a_run_that_is_killed_goes_on_exactly(place):
    environment = {**os.environ, "PYTHONPATH": str(Path(dvae.__file__).parents[1])}
    command = [sys.executable, "-m", "dvae", *RUN, "--name=r", stopped(signal.SIGKILL, 13)]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert read_checkpoint(last(place / "runs/r"))["global_step"] == 10
    assert main([*RUN, "--name=r", "--ckpt_path=last"]) == 0
    assert main([*RUN, "--name=whole"]) == 0
    assert_same_run(place / "runs/r", place / "runs/whole")


COIN = ("rl", "fit", f"--data.env={TINY}.Coin", *SMALL, "--trainer.max_steps=2")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rl", "fti"), "unknown command 'rl fti'; did you mean fit?"),
        (("rl", "fit"), "data.env must be given, an id of gymnasium"),
        (
            ("rl", "fit", "--data.env=CartPol-v1", "--trainer.max_steps=2"),
            "env must be an environment of gymnasium, got 'CartPol-v1'",
        ),
        (("rl", "fit", "--data.env=CartPole-v1"), "a run must have an end: give --model.max_environment_steps"),
        ((*COIN, "--data.env_kwargs={actions: 3}"), "env must have actions that are Discrete or Box, got MultiBinary(3)"),
        ((*COIN, "--data.env_kwargs={reward: .nan}"), "env must give finite rewards, got nan"),
        ((*COIN, "--model.lrr=3"), "PolicyGradient has no argument lrr; did you mean --model.lr?"),
        ((*COIN, "--model.lr=fast"), "--model.lr must be a number, got 'fast'"),
        ((*COIN, "--trainer.max_step=3"), "unknown argument --trainer.max_step; did you mean --trainer.max_steps?"),
        ((*COIN, "--model.estimator=RELAXX"), "did you mean RELAX?"),
        ((*COIN, "--model.estimator=LAX"), "actions, which are one of several"),
        ((*COIN, "--model.estimator.hidden=3"), "model.estimator must be given, the class whose argument hidden is"),
        ((*COIN, "--data.num_steps=3"), "credit='returns' needs whole episodes"),
        ((*COIN, "--config=cartpol_relax"), "config cartpol_relax does not exist, and the package has rl/cartpole_a2c"),
        ((*COIN, "--ckpt_path=last"), "there is no last.ckpt to resume from below runs"),
    ],
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_told_in_one_sentence_and_leaves_no_folder(place, refused, arguments, sentence):
    assert sentence in refused(*arguments)
    assert not list(place.glob("runs/*"))


def test_an_episode_that_does_not_end_is_told(place, refused, monkeypatch):
    monkeypatch.setattr("dvae.rl.rollouts._LONGEST_EPISODE", 50)
    assert "an episode has not ended after 50 steps" in refused(*COIN, "--data.env_kwargs={ends: false}")
    assert not list(place.glob("runs/*"))


def test_without_gymnasium_one_sentence_says_how_to_get_it(place, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    sentence = "reinforcement learning needs gymnasium: pip install 'discrete-vae[rl]'"
    assert sentence in refused(*CARTPOLE, "--trainer.max_steps=2")
    assert not list(place.glob("runs/*"))


def page_of(*arguments):
    page = io.StringIO()
    with redirect_stdout(page), pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code in (0, None)
    return page.getvalue()


def test_help_lists_the_commands_and_each_ones_arguments(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert all(f"  {name} " in page_of("rl", "--help") for name in COMMANDS)
    page = page_of("help", "rl", "fit")
    assert page.startswith("usage: dvae rl fit")
    assert "--model.phi_objective {step,episode}" in page
    assert page_of("rl", "help", "evaluate").startswith("usage: dvae rl evaluate checkpoint")


def test_help_and_typos_import_neither_torch_nor_gymnasium():
    code = (
        "import sys; from dvae.cli import main; main(['rl', 'fti']); "
        "print(sorted({'torch', 'gymnasium', 'pytorch_lightning', 'jsonargparse'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["cartpole_a2c", "cartpole_relax", "lunarlander_a2c", "lunarlander_relax", "pendulum_a2c", "pendulum_lax"]
)
def test_every_config_trains_for_a_step(place, name):
    pytest.importorskip({"lunarlander": "Box2D", "pendulum": "mujoco"}.get(name.split("_")[0], "gymnasium"))
    short = ["--data.num_steps=50", "--model.value_steps=2"] if "pendulum" in name else []
    assert main(["rl", "fit", f"--config={name}", *SMALL, *short, "--trainer.max_steps=1"]) == 0
    assert load(place / "runs" / name).iteration == 1
