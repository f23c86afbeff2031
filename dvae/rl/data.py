"""The data module of reinforcement learning: rollouts of the policy that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from dvae.config import Configurable, import_object
from dvae.errors import InputError
from dvae.models.building import require_at_least
from dvae.rl.environments import Environments, Separate, Spaces, Vectorized, make_environment, require_gymnasium
from dvae.rl.rollouts import Rollout, collect

if TYPE_CHECKING:
    from dvae.rl.module import PolicyGradient

__all__ = ["Rollouts"]


class Rollouts(Configurable, pl.LightningDataModule):
    """Rollouts of the policy that is being trained, a batch each, in environments of gymnasium.

    Each batch is collected when it is asked for, with the policy of that moment.

    Arguments:
        env: an id of gymnasium, such as ``"CartPole-v1"``; or a function that makes an environment, or its import path: of a vector
            environment, ``(num_envs) -> VectorEnv``, where ``vectorized`` is true.
        num_envs: N, environments of each agent.
        num_steps: T, steps of a rollout; None for whole episodes: a rollout begins N of them, and ends with the longest.
        max_episode_steps: where episodes are cut off; gymnasium's own limit where it is None.
        env_kwargs: arguments of the environment.
        wrappers: around each environment, from the inside out: names of ``gymnasium.wrappers``, import paths, or
            ``{"class_path": ..., "init_args": ...}``.
        vectorized: whether environments are stepped as one vector environment; otherwise one after the other, where an episode is a
            function of its seed, and a run can be resumed exactly.
        rollouts_per_epoch: what Lightning calls an epoch.

    Raises:
        InputError: there is no such environment, it needs a package that is not installed, or its actions are neither Discrete nor
            a Box.

    Example:
        >>> data = dvae.rl.Rollouts("CartPole-v1", max_episode_steps=200)
        >>> data.spaces.num_observations, data.spaces.action.num_classes
        (4, 2)
    """

    def __init__(
        self,
        env: str | Callable[..., Any],
        *,
        num_envs: int = 1,
        num_steps: int | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        wrappers: Sequence[str | dict[str, Any]] = (),
        vectorized: bool = False,
        rollouts_per_epoch: int = 1000,
    ) -> None:
        super().__init__()
        lengths = {"num_steps": num_steps, "max_episode_steps": max_episode_steps}
        require_at_least(1, num_envs=num_envs, rollouts_per_epoch=rollouts_per_epoch)
        require_at_least(1, **{name: length for name, length in lengths.items() if length is not None})
        self.env, self.num_envs, self.num_steps = env, num_envs, num_steps
        self.max_episode_steps, self.env_kwargs = max_episode_steps, dict(env_kwargs or {})
        self.wrappers, self.vectorized = list(wrappers), vectorized
        self.rollouts_per_epoch = rollouts_per_epoch
        self._environments: Environments | None = None
        self._state: Mapping[str, Any] = {}
        probe = self.environments([0], 1)
        self.spaces: Spaces = probe.spaces
        probe.close()

    def environments(self, seeds: Sequence[int], num_envs: int | None = None) -> Environments:
        """Fresh environments of this kind, ``num_envs`` for each seed."""
        number = self.num_envs if num_envs is None else num_envs
        env = _callable(self.env)
        if not self.vectorized:
            return Separate(lambda: make_environment(env, self.env_kwargs, self.wrappers, self.max_episode_steps), seeds, number)
        gym, total = require_gymnasium(), len(seeds) * number
        if callable(env):
            return Vectorized(env(num_envs=total, **self.env_kwargs), seeds[0])
        limit = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        if self.wrappers:
            raise InputError("wrappers must be empty where vectorized is true: they are put around single environments")
        return Vectorized(gym.make_vec(env, num_envs=total, **limit, **self.env_kwargs), seeds[0])

    def collect(self, model: PolicyGradient) -> Rollout:
        """One rollout with the model's policies as they are."""
        if self._environments is None:
            self._environments = self.environments([model.seed + index for index in range(model.num_seeds)])
            self._environments.restart()
            if self._state:
                self._environments.restore(self._state)
                self._state = {}
        return collect(self._environments, model.act, model.num_seeds, self.num_steps)

    def setup(self, stage: str) -> None:
        """Begin anew; a checkpoint's state comes after this."""
        if stage == "fit":
            self._state = {}

    def train_dataloader(self) -> _Loader:
        return _Loader(self)

    def teardown(self, stage: str) -> None:
        self._state = self.state_dict()
        if self._environments is not None:
            self._environments.close()
            self._environments = None

    def state_dict(self) -> dict[str, Any]:
        """Where the environments are."""
        return dict(self._state) if self._environments is None else self._environments.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where they were."""
        self._state = state_dict


class _Loader:
    # Without a length Lightning would ask for a batch ahead, with the policy of before the update.
    def __init__(self, data: Rollouts) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.rollouts_per_epoch

    def __iter__(self) -> Iterator[Rollout]:
        for _ in range(len(self)):
            assert self.data.trainer is not None
            yield self.data.collect(self.data.trainer.lightning_module)  # type: ignore[arg-type]

    # A batch does not depend on its place in an epoch: where the environments are is in the data module's state.

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def _callable(env: str | Callable[..., Any]) -> str | Callable[..., Any]:
    """What an import path names; an id of gymnasium, which has a dash before its version and no dot, passes through."""
    if not callable(env) and not isinstance(env, str):
        raise InputError(
            f"env must be an id of gymnasium, a function that makes an environment or its path, got {type(env).__name__}"
        )
    return env if callable(env) or "." not in env else import_object(env, "env")
