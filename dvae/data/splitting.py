"""Taking splits out of one set of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dvae.data.arrays import HOLD_OUT, label_tensor, number_tensor
from dvae.data.stores import Store, Subset
from dvae.errors import InputError
from dvae.noise import mixed_seed

__all__ = ["check_fraction", "hold_out"]


def check_fraction(name: str, fraction: float | None) -> None:
    """An InputError where a share does not lie in (0, 1)."""
    if fraction is not None and not 0 < fraction < 1:
        raise InputError(f"{name} must lie in (0, 1), got {fraction}")


def hold_out(
    parts: Mapping[str, Any], labels: Mapping[str, Any], fraction: float, seed: int, split: str = "valid"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The splits and their labels with a share of the training set as another split.

    Arguments:
        parts: arrays, tensors or stores, "train" among them.
        labels: of those that have any.
        fraction: the share, in (0, 1).
        seed: which examples are drawn.
        split: what the share becomes.

    Raises:
        InputError: there is such a split already, or one of the two would be empty.
    """
    if split in parts:
        what = {"valid": "validation", "test": "test"}[split]
        raise InputError(f"{split}_fraction must be None where there is a {what} set already, got {fraction}")
    train: Any = parts["train"]
    train = train if isinstance(train, Store) else number_tensor(train, "train")
    held = round(fraction * len(train))
    if not 0 < held < len(train):
        raise InputError(f"{split}_fraction must leave both sets an example, got {fraction} of {len(train)}")
    streams = (HOLD_OUT,) if split == "valid" else (HOLD_OUT, 1)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(mixed_seed(seed, *streams)))
    places = {"train": order[held:].sort().values, split: order[:held].sort().values}
    divided = {name: Subset(train, own) if isinstance(train, Store) else train[own] for name, own in places.items()}
    kept = {name: own for name, own in labels.items() if name != "train"}
    if "train" in labels:
        all_labels = label_tensor(labels["train"], "train", len(train))
        kept |= {name: all_labels[chosen] for name, chosen in places.items()}
    return {**parts, **divided}, kept
