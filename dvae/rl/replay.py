"""Rollouts kept to train a surrogate on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvae.noise import noise_seed
from dvae.rl.rollouts import Rollout

__all__ = ["Replay"]

_DRAW = 2


class Replay:
    """The latest rollouts with what was credited to their actions; without any kept, the very latest.

    A surrogate may be trained on actions of earlier policies: that changes how good a control variate it is, and not what the
    gradient of the policy is on average.

    Arguments:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[tuple[Rollout, Tensor]] = []

    def add(self, rollout: Rollout, credit: Tensor) -> None:
        """Keep a rollout, and forget the oldest one."""
        self.kept = [*self.kept, (rollout, credit)][-max(1, self.size) :]

    def draw(self, seed: int, *counters: int) -> tuple[Rollout, Tensor]:
        """One of those kept, a function of the seed and the counters."""
        return self.kept[noise_seed(seed, _DRAW, *counters) % len(self.kept)]

    def state(self) -> list[dict[str, Tensor]]:
        """Plain tensors; nothing where nothing outlives an update."""
        return [{**rollout._asdict(), "credit": credit} for rollout, credit in self.kept] if self.size else []

    def restore(self, state: Any) -> None:
        """Keep what :meth:`state` gave."""
        self.kept = [(_rollout(entry), torch.as_tensor(entry["credit"])) for entry in state]


def _rollout(entry: Mapping[str, Tensor]) -> Rollout:
    return Rollout(**{name: entry[name] for name in Rollout._fields})
