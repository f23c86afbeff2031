"""The learning rate's schedule over the parameter groups of several models."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dvae.config import instantiate
from dvae.errors import InputError

__all__ = ["joint_scheduler"]


def joint_scheduler(
    config: Mapping[str, Any], optimizer: Optimizer, num_models: int, optimizer_of_one: Callable[[], Optimizer]
) -> LRScheduler:
    """The scheduler that a config describes for one model's groups, over those of all models.

    Where an argument is a list with a value for each group (theta's and, where there is a phi, phi's), all models get these values.

    Arguments:
        config: a class of ``torch.optim.lr_scheduler`` and its arguments.
        optimizer: over equally many groups of each model.
        num_models: R.
        optimizer_of_one: makes another, over the groups of one model.

    Raises:
        InputError: the class does not exist or does not take its arguments, or it wants to be told a metric.
    """
    _try(config, optimizer_of_one())
    arguments = dict(config.get("init_args") or {})
    num_groups = len(optimizer.param_groups) // num_models
    for name, value in arguments.items():
        if num_models > 1 and isinstance(value, (list, tuple)) and len(value) == num_groups:
            # What is of each group must be as many; of another list, such as milestones, there may be more.
            doubled = {**config, "init_args": {**arguments, name: [*value, *value]}}
            if not _works(doubled, optimizer_of_one()):
                arguments[name] = list(value) * num_models
    return instantiate({**config, "init_args": arguments}, LRScheduler, "lr_scheduler", optimizer=optimizer)


def _try(config: Mapping[str, Any], optimizer: Optimizer) -> None:
    """An InputError where the scheduler cannot be built, or cannot take a step."""
    try:
        scheduler = instantiate(config, LRScheduler, "lr_scheduler", optimizer=optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise InputError(
                f"lr_scheduler must follow the number of updates alone, got {config['class_path']}, which follows a metric"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer has not taken a step
            scheduler.step()
    except InputError:
        raise
    except Exception as error:  # PyTorch's, whatever a wrong value leads to
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"lr_scheduler: {config['class_path']} cannot be built: {reason} (a list of values for parameter groups has "
            "one for theta and, where the estimator has parameters, one for phi)"
        ) from None


def _works(config: Mapping[str, Any], optimizer: Optimizer) -> bool:
    try:
        _try(config, optimizer)
    except InputError:
        return False
    return True
