"""Taking splits out of one set of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dvae.data.arrays import HOLD_OUT, label_tensor, number_tensor
from dvae.data.stores import Store, Subset
from dvae.errors import InputError
from dvae.noise import mixed_seed

__all__ = ["check_fractions", "hold_out"]


def check_fractions(valid_fraction: float | None, test_fraction: float | None) -> None:
    """An InputError where a share does not lie in (0, 1), or nothing is left for training."""
    for name, fraction in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if fraction is not None and not 0 < fraction < 1:
            raise InputError(f"{name} must lie in (0, 1), got {fraction}")
    if (valid_fraction or 0) + (test_fraction or 0) >= 1:
        raise InputError(f"valid_fraction and test_fraction must leave a training set, got {valid_fraction} and {test_fraction}")


def hold_out(
    parts: Mapping[str, Any],
    labels: Mapping[str, Any],
    valid_fraction: float | None,
    test_fraction: float | None,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The splits and their labels, with shares of the training set as further splits.

    Arguments:
        parts: arrays, tensors or stores, "train" among them.
        labels: of those that have any.
        valid_fraction, test_fraction: the shares of what the training set is before, in (0, 1); None for no such split.
        seed: which examples are drawn.

    Raises:
        InputError: there is such a split already, or one of them would be empty.
    """
    asked = {name: own for name, own in (("valid", valid_fraction), ("test", test_fraction)) if own is not None}
    if asked:
        train: Any = parts["train"]
        parts = {**parts, "train": train if isinstance(train, Store) else number_tensor(train, "train")}
    sizes = {split: round(fraction * len(parts["train"])) for split, fraction in asked.items()}
    for split, fraction in asked.items():
        parts, labels = _held_out(parts, labels, sizes[split], fraction, seed, split)
    return dict(parts), dict(labels)


def _held_out(
    parts: Mapping[str, Any], labels: Mapping[str, Any], held: int, fraction: float, seed: int, split: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    if split in parts:
        what = {"valid": "validation", "test": "test"}[split]
        raise InputError(f"{split}_fraction must be None where there is a {what} set already, got {fraction}")
    train: Any = parts["train"]
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
