"""``dvae rl evaluate``: figures of fresh episodes, a picture, and what is refused."""

import json
import math
import sys

import pytest
import torch
from PIL import Image

import dvae
from dvae.cli import main
from dvae.errors import InputError
from dvae.rl import load
from dvae.training.checkpoints import DurableCheckpointIO, read_checkpoint

pytest.importorskip("gymnasium")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the run of two agents, hardly trained."""
    folder = tmp_path_factory.mktemp("policies")
    flags = ["--data.env=CartPole-v1", "--data.max_episode_steps=30", "--model.num_seeds=2", "--model.compile=false"]
    flags += ["--trainer.max_steps=2", "--trainer.enable_progress_bar=false", f"--runs={folder}", "--name=r"]
    assert main(["rl", "fit", *flags]) == 0
    return folder


def figures(run, *flags):
    assert main(["rl", "evaluate", str(run), f"--json={run / 'out.json'}", *flags]) == 0
    return json.loads((run / "out.json").read_text())


def rewritten(run, tmp_path, **data):
    """The run's checkpoint with other arguments of its environments."""
    content = read_checkpoint(next(run.rglob("last.ckpt")))
    content["dvae"]["data"]["init_args"] |= data
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "changed.ckpt")
    return str(tmp_path / "changed.ckpt")


def test_each_agent_has_its_row_and_the_figures_are_those_of_the_seed(run, capsys):
    first, again, other = (figures(run, "--episodes=12", *flags)["agents"] for flags in ([], [], ["--seed=1"]))
    assert [own["agent"] for own in first] == [0, 1]
    assert first == again != other
    assert all(5 < own["reward"] == own["length"] <= 30 and own["num_episodes"] == 12 for own in first)
    assert "12 episodes of CartPole-v1, sampled actions" in capsys.readouterr().out
    assert figures(run, "--episodes=12", "--agent=1")["agents"] == first[1:]


def test_one_episode_has_no_standard_error(run):
    (own,) = figures(run, "--episodes=1", "--agent=0")["agents"]
    assert own["reward_error"] is None


def test_mean_reward_and_standard_error_are_those_of_a_policy_by_hand(run):
    gym = pytest.importorskip("gymnasium")
    model = load(run)
    agent, env, lengths = model.extract(0), gym.make("CartPole-v1", max_episode_steps=30), []
    for seed in range(200):
        observation, over, length = env.reset(seed=seed)[0], False, 0
        while not over:
            logits = agent.policy(torch.from_numpy(observation))
            action = torch.distributions.Categorical(logits=logits).sample()
            observation, _, terminated, truncated, _ = env.step(int(action))
            over, length = terminated or truncated, length + 1
        lengths.append(length)
    by_hand = torch.tensor(lengths, dtype=torch.float64)
    (own,) = figures(run, "--episodes=200", "--agent=0")["agents"]
    error = math.hypot(own["reward_error"], by_hand.std().item() / math.sqrt(200))
    assert abs(own["reward"] - by_hand.mean().item()) < 4 * error


def test_greedy_actions_are_the_most_probable_ones(run):
    sampled, greedy = (figures(run, "--episodes=20", "--agent=0", *flags)["agents"][0] for flags in ([], ["--greedy"]))
    assert sampled["reward"] != greedy["reward"]
    # Without a choice, the same start is the same episode.
    assert figures(run, "--episodes=20", "--agent=0", "--greedy")["agents"][0] == greedy


def test_an_episode_is_drawn_as_a_gif(run, tmp_path, capsys):
    pytest.importorskip("pygame")
    assert main(["rl", "evaluate", str(run), "--episodes=2", "--agent=1", f"--gif={tmp_path / 'e.gif'}"]) == 0
    assert "an episode of agent 1, reward " in capsys.readouterr().out
    with Image.open(tmp_path / "e.gif") as picture:
        assert picture.n_frames > 2
        assert picture.size == (600, 400)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--agent=2",), "index must be from 0 to 1, got 2"),
        (("--episodes=0",), "episodes must be at least 1, got 0"),
        (("--gif=e.png",), "gif must be a .gif file, got e.png"),
        (
            ("--env=Acrobot-v1",),
            "of 4 observations and actions that are one of 2, got 'Acrobot-v1' of 6 observations and actions that are one of 3",
        ),
        (("--env=CartPol-v1",), "env must be an environment of gymnasium, got 'CartPol-v1'"),
        (("--episode=3",), "unknown argument --episode; did you mean --episodes?"),
        (("--device=tpu",), "device must be cpu or cuda, got 'tpu'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_told_in_one_sentence(run, refused, flags, sentence):
    assert sentence in refused("rl", "evaluate", str(run), *flags)


def test_what_drawing_needs_is_told(run, refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pygame", None)
    sentence = refused("rl", "evaluate", str(run), "--episodes=1", "--agent=0", f"--gif={tmp_path / 'e.gif'}")
    assert "to draw env 'CartPole-v1' needs a package that is not installed" in sentence
    assert "pip install" in sentence
    assert not list(tmp_path.iterdir())


def test_without_gymnasium_one_sentence_says_how_to_get_it(run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert "pip install 'discrete-vae[rl]'" in refused("rl", "evaluate", str(run))


@pytest.mark.parametrize(
    "data",
    [{"env": "os.system"}, {"env": "dvae.config.import_class"}, {"env": "antigravity:X-v0"}, {"wrappers": ["os.system"]}],
    ids=lambda data: str(*data.values()),
)
def test_an_environment_that_is_none_of_gymnasiums_is_not_imported_unless_trusted(run, refused, tmp_path, data):
    changed = rewritten(run, tmp_path, **data)
    assert "names environments outside gymnasium" in refused("rl", "evaluate", changed, "--episodes=1")


def test_wrappers_of_gymnasium_need_no_trust(run, tmp_path, capsys):
    changed = rewritten(run, tmp_path, wrappers=[{"class_path": "gymnasium.wrappers.ClipReward", "init_args": {"max_reward": 0.5}}])
    assert main(["rl", "evaluate", changed, "--episodes=2"]) == 0
    (own, _) = figures(tmp_path, "--episodes=4")["agents"]
    assert own["reward"] == pytest.approx(own["length"] / 2)


def test_each_command_names_the_other_for_the_others_checkpoint(run, refused, tmp_path):
    model = dvae.DiscreteVAE(num_pixels=16, num_latents=4, compile=False)
    content = {"dvae": {}, "hyper_parameters": model.config["init_args"], "state_dict": model.state_dict()}
    content["dvae"] = {"class_path": "dvae.DiscreteVAE", "data": None, "format": 2, "iteration": 0, "running": {}}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "vae.ckpt")
    assert "is of an autoencoder: dvae evaluate measures it" in refused("rl", "evaluate", str(tmp_path / "vae.ckpt"))
    policy = str(next(run.rglob("last.ckpt")))
    for command in (["evaluate", policy], ["sample", policy], ["encode", policy, "--out=x.npz"], ["fit", f"--ckpt_path={policy}"]):
        assert "is of policies: dvae rl evaluate measures them" in refused(*command)
    with pytest.raises(InputError, match="is of policies"):
        dvae.init_from(model, policy)


def test_a_policys_checkpoint_of_foreign_classes_is_refused(run, tmp_path):
    content = read_checkpoint(next(run.rglob("last.ckpt")))
    content["hyper_parameters"]["policy"] = {"class_path": "somewhere.Policy", "init_args": {}}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="names classes outside dvae"):
        load(tmp_path / "foreign.ckpt")
