"""Environments side by side: made, reset with seeds of their own, stepped, and put back where they were."""

from __future__ import annotations

import importlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.latents import Categorical, Gaussian, Spec
from dvae.noise import mixed_seed

if TYPE_CHECKING:
    import gymnasium

__all__ = ["Environments", "Separate", "Spaces", "Transition", "Vectorized", "make_environment"]

_WRAPPERS = "gymnasium.wrappers."


class Spaces(NamedTuple):
    """What an agent needs to know of an environment.

    num_observations: O, of the flattened observation.
    action: the latent that an action is; Categorical where it is one of several, Gaussian where it is a vector.
    """

    num_observations: int
    action: Spec


class Transition(NamedTuple):
    """One step of E environments.

    observation: [E, O], float32, what the action led to; the last one of an episode that ended.
    reward: [E], float64.
    terminated: [E], whether the episode is over.
    truncated: [E], whether it was cut off by a time limit.
    counts: [E], false where it was no step: the environment was not asked to go, or was reset.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    counts: np.ndarray


class Environments(ABC):
    """E environments of one kind, whose actions are an agent's samples.

    Arguments:
        space: of one environment's observation, flat.
        action_space: of one environment.
        num_environments: E.

    Raises:
        InputError: actions are neither one of several nor a vector.
    """

    def __init__(self, space: Any, action_space: Any, num_environments: int) -> None:
        self.num_environments = num_environments
        self.spaces = _spaces(space, action_space)
        self._action_space = action_space
        self.observation = np.zeros((num_environments, self.spaces.num_observations), np.float32)
        self.total = np.zeros(num_environments)  # of the rewards of the running episodes

    def actions(self, sample: Tensor) -> np.ndarray:
        """What environments take, from samples [*, *sample] in one leading dimension: an index each, or a vector within the box."""
        if self.spaces.action.family is Categorical:
            return sample.argmax(-1).flatten().numpy() + getattr(self._action_space, "start", 0)
        box = self._action_space
        return np.clip(sample.numpy().reshape(-1, *box.shape), box.low, box.high).astype(box.dtype)

    @abstractmethod
    def restart(self) -> None:
        """Begin a new episode everywhere."""

    @abstractmethod
    def step(self, sample: Tensor, going: np.ndarray) -> Transition:
        """Take a step; where an episode ends, :attr:`observation` is the first of the next one.

        Arguments:
            sample: of the agent, [E, *sample].
            going: [E], which are to take one.
        """

    def state(self) -> dict[str, Tensor]:
        """Plain tensors from which :meth:`restore` puts the environments back where they are."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - a new episode begins where nothing can be restored
        """Go on where :meth:`state` was asked for."""

    @abstractmethod
    def close(self) -> None:
        """Free what the environments hold, such as windows."""


class Separate(Environments):
    """Environments in a list, each asked by itself; those that are not to go are left alone.

    An episode is a function of (seed, environment, episode) and the actions alone, for each begins with a seed of its own. So a run
    can be resumed in the middle of one: its actions are taken again.

    Arguments:
        make: makes one.
        seeds: of each agent.
        num_environments: N of each agent.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], seeds: Sequence[int], num_environments: int) -> None:
        self.environments = [make() for _ in range(len(seeds) * num_environments)]
        first = self.environments[0]
        super().__init__(first.observation_space, first.action_space, len(self.environments))
        self._streams = [(seed, index) for seed in seeds for index in range(num_environments)]
        self._episode = [-1] * self.num_environments
        self._taken: list[list[Tensor]] = [[] for _ in self.environments]

    def restart(self) -> None:
        for index in range(self.num_environments):
            if self._episode[index] < 0 or self._taken[index]:
                self.total[index] = 0.0
                self._next(index)

    def _next(self, index: int) -> None:
        self._episode[index] += 1
        self._taken[index] = []
        self.observation[index] = self._reset(index)

    def _reset(self, index: int) -> np.ndarray:
        seed = mixed_seed(*self._streams[index], self._episode[index]) >> 33
        observation, _ = self.environments[index].reset(seed=seed)
        return observation

    def step(self, sample: Tensor, going: np.ndarray) -> Transition:
        actions = self.actions(sample)
        after = list(self.observation)
        reward, terminated, truncated = ([zero] * self.num_environments for zero in (0.0, False, False))
        taken = sample.unbind()
        for index in np.flatnonzero(going).tolist():
            after[index], reward[index], terminated[index], truncated[index], _ = self.environments[index].step(actions[index])
            self._taken[index].append(taken[index])
        led_to = np.array(after, np.float32)
        self.observation[going] = led_to[going]
        for index, over in enumerate(map(operator.or_, terminated, truncated)):
            if over:
                self._next(index)
        return Transition(led_to, np.array(reward, float), np.array(terminated, bool), np.array(truncated, bool), going.copy())

    def state(self) -> dict[str, Tensor]:
        shape = self.spaces.action.sample_shape
        taken = [torch.stack(own) if own else torch.zeros(0, *shape) for own in self._taken]
        return {
            "episode": torch.tensor(self._episode),
            "num_taken": torch.tensor([len(own) for own in taken]),
            "taken": torch.cat(taken),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        episodes, lengths = state["episode"].tolist(), state["num_taken"].tolist()
        if len(episodes) != self.num_environments:
            raise InputError(
                f"the checkpoint is of {len(episodes)} environments, the run has {self.num_environments}: give it the num_envs and "
                "num_seeds of its run"
            )
        for index, actions in enumerate(state["taken"].split(lengths)):
            self._episode[index] = episodes[index]
            self._taken[index] = list(actions)
            if episodes[index] < 0:
                continue
            self.observation[index] = self._reset(index)
            for action in actions:
                self.observation[index], reward, *_ = self.environments[index].step(self.actions(action[None])[0])
                self.total[index] += reward

    def close(self) -> None:
        for environment in self.environments:
            environment.close()


class Vectorized(Environments):
    """A vector environment of gymnasium, which steps as a whole and resets by itself on the step after an episode's last.

    That step is a dummy: its action is ignored, its reward is zero, and it belongs to no episode. It does not count.

    Arguments:
        environment: made by ``gymnasium.make_vec`` or one like it.
        seed: of all of them.

    Raises:
        InputError: it resets in another way.
    """

    def __init__(self, environment: gymnasium.vector.VectorEnv[Any, Any, Any], seed: int) -> None:
        mode = getattr(environment.metadata.get("autoreset_mode"), "value", None)
        if mode != "NextStep":
            raise InputError(
                f"env must be a vector environment that resets on the next step (autoreset_mode NEXT_STEP), got {mode or 'none'}"
            )
        self.environment = environment
        super().__init__(environment.single_observation_space, environment.single_action_space, environment.num_envs)
        self._seed, self._episode = seed, -1
        self._resets = np.zeros(self.num_environments, bool)

    def restart(self) -> None:
        self._episode += 1
        self._set(self.environment.reset(seed=mixed_seed(self._seed, self._episode) >> 33)[0])
        self._resets[:], self.total[:] = False, 0.0

    def _set(self, observation: Any) -> None:
        self.observation = np.asarray(observation, np.float32).reshape(self.num_environments, -1)

    def step(self, sample: Tensor, going: np.ndarray) -> Transition:
        observation, reward, terminated, truncated, _ = self.environment.step(self.actions(sample))
        self._set(observation)
        counts, self._resets = going & ~self._resets, terminated | truncated
        return Transition(self.observation.copy(), np.asarray(reward, float), terminated & counts, truncated & counts, counts)

    def close(self) -> None:
        self.environment.close()


def make_environment(
    env: str | Callable[..., Any],
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str | Mapping[str, Any]] = (),
    max_episode_steps: int | None = None,
) -> gymnasium.Env[Any, Any]:
    """One environment whose observations are flat.

    Arguments:
        env: an id of gymnasium, such as ``"CartPole-v1"``, or a callable that makes an environment.
        env_kwargs: its arguments.
        wrappers: around it from the inside out: names of ``gymnasium.wrappers``, import paths, or
            ``{"class_path": ..., "init_args": ...}``.
        max_episode_steps: where episodes are cut off; gymnasium's own limit where it is None.

    Raises:
        InputError: there is no such environment or wrapper, or a package that it needs is not installed.
    """
    gym = require_gymnasium()
    options = dict(env_kwargs or {})
    try:
        if callable(env):
            made = env(**options)
            if max_episode_steps is not None:
                made = gym.wrappers.TimeLimit(made, max_episode_steps)
        else:
            made = gym.make(env, max_episode_steps=max_episode_steps, **options)
    except gym.error.DependencyNotInstalled as error:
        raise InputError(f"env {env!r} needs a package that is not installed: pip install 'discrete-vae[rl]' ({error})") from None
    except gym.error.UnregisteredEnv as error:
        raise InputError(f"env must be an environment of gymnasium, got {env!r}: {' '.join(str(error).split())}") from None
    except (gym.error.Error, TypeError) as error:
        raise InputError(f"env {env!r} cannot be made: {' '.join(str(error).split())}") from None
    if not isinstance(made, gym.Env):
        raise InputError(f"env must make a gymnasium.Env, got {type(made).__name__}")
    for wrapper in wrappers:
        made = _wrapped(made, wrapper)
    space = made.observation_space
    if not (isinstance(space, gym.spaces.Box) and len(space.shape) == 1):
        try:
            made = gym.wrappers.FlattenObservation(made)
        except NotImplementedError:
            raise InputError(f"env must have observations that can be flattened, got {space}") from None
    return made


def require_gymnasium() -> Any:
    """The package, which only this part of the library needs; an InputError says how to install it."""
    try:
        import gymnasium
    except ImportError:
        raise InputError("reinforcement learning needs gymnasium: pip install 'discrete-vae[rl]'") from None
    return gymnasium


def _wrapped(environment: Any, wrapper: str | Mapping[str, Any]) -> Any:
    given: dict[str, Any] = {"class_path": wrapper} if isinstance(wrapper, str) else dict(wrapper)
    path = str(given.get("class_path"))
    module, _, name = (path if "." in path else _WRAPPERS + path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(environment, **(given.get("init_args") or {}))
    except (ImportError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"wrappers: {path} cannot be put around the environment: {error}") from None


def _spaces(space: Any, action_space: Any) -> Spaces:
    gym = require_gymnasium()
    size = int(np.prod(space.shape))
    if isinstance(action_space, gym.spaces.Discrete):
        return Spaces(size, Spec(Categorical, 1, int(action_space.n)))
    if isinstance(action_space, gym.spaces.Box):
        return Spaces(size, Spec(Gaussian, int(np.prod(action_space.shape))))
    raise InputError(f"env must have actions that are Discrete or Box, got {action_space}")
