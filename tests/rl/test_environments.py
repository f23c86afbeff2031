"""Environments side by side: seeds, resets, dummy steps, and what cannot be one."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import dvae
from dvae.rl.environments import Separate, Vectorized, make_environment


class Counting(gym.Env):
    """Ends after as many steps as its seed says, from 2 to 5; the reward is the step's number."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    rewards = (1.0, 2.0, 3.0, 4.0, 5.0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.time = int(self.np_random.integers(2, 6)), 0
        return self._observation(), {}

    def _observation(self):
        return np.array([self.time, self.length], np.float32)

    def step(self, action):
        self.time += 1
        return self._observation(), self.rewards[self.time - 1], self.time == self.length, False, {}


class Endless(Counting):
    def step(self, action):
        observation, *_ = super().step(action)
        self.time = 0
        return observation, 1.0, False, False, {}


class Unseen(Counting):
    def _observation(self):
        return super()._observation() / (self.time < 2)


class Undefined(Counting):
    rewards = (1.0, float("nan"), 3.0, 4.0, 5.0)


def left(environments) -> torch.Tensor:
    return torch.tensor([[[1.0, 0.0]]]).expand(environments.num_environments, 1, 2)


def everything(environments) -> np.ndarray:
    return np.ones(environments.num_environments, bool)


def test_every_episode_has_a_seed_of_its_own_and_is_the_same_again():
    def lengths() -> list[np.ndarray]:
        environments, found = Separate(Counting, [3, 4], 5), []
        for _ in range(3):
            environments.restart()
            found.append(environments.observation[:, 1].copy())
            environments.step(left(environments), everything(environments))
        return found

    first, again = lengths(), lengths()
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0][:5], first[0][5:])


def test_environments_go_on_where_they_were():
    environments = Separate(Counting, [0], 4)
    environments.restart()
    for _ in range(7):
        after = environments.step(left(environments), everything(environments))
        environments.total += after.reward
        environments.total[after.terminated] = 0
    again = Separate(Counting, [0], 4)
    again.restore(environments.state())
    assert np.array_equal(again.observation, environments.observation)
    assert np.array_equal(again.total, environments.total)
    for _ in range(9):
        one, other = (own.step(left(own), everything(own)) for own in (environments, again))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_step_that_resets_a_vector_environment_does_not_count():
    vector = gym.vector.SyncVectorEnv([Counting] * 3)
    environments = Vectorized(vector, seed=0)
    environments.restart()
    rewards, counts = [], []
    lengths = environments.observation[:, 1].copy()
    for _ in range(6):
        after = environments.step(left(environments), everything(environments))
        rewards.append(after.reward)
        counts.append(after.counts)
    for index, length in enumerate(lengths.astype(int)):
        assert [row[index] for row in counts][: length + 1] == [True] * length + [False]
        assert rewards[length][index] == 0


def test_a_vector_environment_that_resets_in_the_same_step_is_refused():
    vector = gym.vector.SyncVectorEnv([Counting], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    with pytest.raises(dvae.InputError, match="autoreset_mode NEXT_STEP"):
        Vectorized(vector, seed=0)


def test_a_time_limit_cuts_an_episode_off():
    environments = Separate(lambda: make_environment(Endless, max_episode_steps=3), [0], 1)
    environments.restart()
    steps = [environments.step(left(environments), everything(environments)) for _ in range(3)]
    assert [bool(step.truncated[0]) for step in steps] == [False, False, True]
    assert not steps[-1].terminated[0]


def test_actions_are_brought_into_their_box():
    data = dvae.rl.Rollouts("Pendulum-v1")
    environments = data.environments([0])
    assert environments.spaces.action == dvae.latents.Spec(dvae.latents.Gaussian, 1)
    assert environments.actions(torch.tensor([[7.0]])).tolist() == [[2.0]]


def test_observations_of_any_shape_are_flat():
    data = dvae.rl.Rollouts("CartPole-v1", wrappers=[{"class_path": "FrameStackObservation", "init_args": {"stack_size": 3}}])
    assert data.spaces.num_observations == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "CartPoll-v1"}, "env must be an environment of gymnasium, got 'CartPoll-v1'"),
        ({"env": "nowhere.to.be_found"}, "env: cannot import 'nowhere.to.be_found'"),
        ({"env": "CartPole-v1", "env_kwargs": {"wind": 1}}, "env 'CartPole-v1' cannot be made"),
        ({"env": "CartPole-v1", "wrappers": ["NoSuchWrapper"]}, "wrappers: NoSuchWrapper cannot be put around"),
        ({"env": lambda: 3}, "env must make a gymnasium.Env, got int"),
        ({"env": "CartPole-v1", "num_envs": 0}, "num_envs must be at least 1"),
        ({"env": "CartPole-v1", "max_episode_steps": 0}, "max_episode_steps must be at least 1"),
        ({"env": Counting()}, "env must be an id of gymnasium, a function that makes an environment or its path, got Counting"),
    ],
)
def test_what_is_no_environment_is_named(arguments, message):
    with pytest.raises(dvae.InputError, match=message):
        dvae.rl.Rollouts(**arguments)


def test_actions_that_are_neither_one_of_several_nor_a_vector_are_refused():
    class Several(Counting):
        action_space = gym.spaces.MultiBinary(3)

    with pytest.raises(dvae.InputError, match="actions that are Discrete or Box, got MultiBinary"):
        dvae.rl.Rollouts(Several)


@pytest.mark.parametrize(
    ("env", "message"), [(Endless, "has not ended after"), (Undefined, "finite rewards, got nan"), (Unseen, "finite observations")]
)
def test_rollouts_that_cannot_be_used_say_why(env, message, monkeypatch):
    monkeypatch.setattr("dvae.rl.rollouts._LONGEST_EPISODE", 200)
    data = dvae.rl.Rollouts(env)
    model = dvae.rl.PolicyGradient(num_observations=2, latent="Categorical", num_latents=1, num_classes=2)
    with pytest.raises(dvae.InputError, match=message):
        data.collect(model)
