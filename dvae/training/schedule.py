"""A number as a function of the step: points in time, what lies between them, and whose number it is."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from dvae.errors import InputError, did_you_mean
from dvae.models.controls import CONTROLS, require_in_range

if TYPE_CHECKING:
    from dvae.training.module import DiscreteVAE

__all__ = ["RATES", "Course", "Interpolation", "groups_of", "require_points_in_range", "tensors_of"]

Interpolation = Literal["linear", "cosine", "exponential", "step"]

RATES = ("lr", "phi_lr")
"""What is a number of the optimizer's groups, theta's and phi's."""


class Course:
    r"""The value at each step, from points.

    With :math:`w` the part of the way from a point to the next, which lies between 0 and 1, and values :math:`a` and :math:`b`:

    .. math:: (1 - w) a + w b, \qquad \text{cosine: } w \leftarrow \tfrac12 (1 - \cos \pi w), \qquad
        \text{exponential: } a^{1 - w} b^w, \qquad \text{step: } a

    After the last point the value is that point's.

    Arguments:
        points: from steps to values; the first step is 0.
        interpolation: "linear", "cosine", "exponential" or "step".

    Raises:
        InputError: the points do not start at 0, are not in order or not finite, or are not positive in an exponential.

    Example:
        >>> from dvae.training.schedule import Course
        >>> [Course({0: 0.0, 100: 1.0})(step) for step in (0, 25, 100, 1000)]
        [0.0, 0.25, 1.0, 1.0]
    """

    def __init__(self, points: Mapping[int, float], interpolation: Interpolation = "linear") -> None:
        if not isinstance(points, Mapping) or not points:
            raise InputError(f"points must be a mapping from steps to values such as {{0: 0.0, 5000: 1.0}}, got {points!r}")
        if interpolation not in get_args(Interpolation):
            raise InputError(f"interpolation must be out of {', '.join(get_args(Interpolation))}, got {interpolation!r}")
        steps = list(points)
        if any(type(step) is not int for step in steps) or steps[0] != 0 or any(b <= a for a, b in itertools.pairwise(steps)):
            raise InputError(f"points must be at whole steps, the first at 0, each later than the one before, got {steps}")
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in points.values()):
            raise InputError(f"points must have finite numbers as values, got {list(points.values())}")
        if interpolation == "exponential" and min(points.values()) <= 0:
            raise InputError(
                f"points must be above 0 for an exponential, got {min(points.values())}: start a little above, or take linear"
            )
        self.steps, self.values = steps, [float(value) for value in points.values()]
        self.interpolation = interpolation

    def __call__(self, step: int) -> float:
        """The value at a step, from 0 on."""
        index = bisect_right(self.steps, step) - 1
        start = self.values[index]
        if index + 1 == len(self.steps) or self.interpolation == "step":
            return start
        end = self.values[index + 1]
        part = (step - self.steps[index]) / (self.steps[index + 1] - self.steps[index])
        if self.interpolation == "exponential":
            return start ** (1 - part) * end**part
        if self.interpolation == "cosine":
            part = (1 - math.cos(math.pi * part)) / 2
        return (1 - part) * start + part * end


def require_points_in_range(name: str, values: Sequence[float]) -> None:
    """An InputError where what has this name cannot have one of these values; what lies between two of them it can have, too."""
    for value in values:
        if name in CONTROLS:
            require_in_range(name, value)
        elif name in RATES and value < 0:
            raise InputError(f"{name} must be at least 0, got {value}")
        elif name.rpartition(".")[2] == "temperature" and value <= 0:
            raise InputError(f"{name} must be positive, got {value}")


def tensors_of(model: DiscreteVAE, name: str) -> list[Tensor]:
    """The scalar buffers of a model that a name stands for; ``estimator.`` is the estimator of each layer.

    Raises:
        InputError: there is none of this name, it is learned, or it is no scalar buffer.
    """
    if name in CONTROLS:
        model.require_control(name)
    path, _, leaf = name.rpartition(".")
    first, _, rest = path.partition(".")
    owners: list[nn.Module] = [model] if first != "estimator" else list(model.estimators)
    try:
        owners = [owner.get_submodule(rest if first == "estimator" else path) for owner in owners]
    except AttributeError:
        raise _unknown(model, name) from None
    return [_buffer(model, owner, name, leaf) for owner in owners]


def _buffer(model: DiscreteVAE, owner: nn.Module, name: str, leaf: str) -> Tensor:
    learned = [own for own, _ in owner.named_parameters(recurse=False) if own in (leaf, f"log_{leaf}")]
    if learned:
        raise InputError(
            f"{name} is learned by {type(owner).__name__}, as its parameter {learned[0]}: a schedule is for numbers that are not"
        )
    value = getattr(owner, leaf, None)
    if value is None:
        raise _unknown(model, name)
    # An attribute that is computed, or no tensor, would be set without effect.
    if not any(value is buffer for buffer in owner.buffers(recurse=False)) or value.dim() or not value.is_floating_point():
        kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} must be a buffer of {type(owner).__name__} with one number, got {kind}")
    return value


def _unknown(model: DiscreteVAE, name: str) -> InputError:
    known = ["lr", *(["phi_lr"] if model.phi() else []), *(own for own in CONTROLS if getattr(model, own) is not None)]
    known += [f"estimator.{own[1:]}" for own, _ in model.estimators[0].named_buffers() if own.startswith("_")]
    return InputError(
        f"there is no {name} in the model for a schedule to change: known are {', '.join(known)}, and other buffers of one number, "
        f"by their paths{did_you_mean(name, [*known, *CONTROLS])}"
    )


def groups_of(optimizer: torch.optim.Optimizer, models: Sequence[DiscreteVAE], name: str) -> list[dict[str, Any]]:
    """The groups of an optimizer whose rate is called ``lr``, theta's, or ``phi_lr``."""
    own = {id(p) for model in models for p in (model.theta() if name == "lr" else model.phi())}
    return [group for group in optimizer.param_groups if any(id(p) in own for p in group["params"])]
