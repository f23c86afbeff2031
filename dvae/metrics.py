"""Metrics, on torchmetrics: means with their standard error, active units, and the variance of a model's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from dvae.errors import InputError
from dvae.step import step_loss

if TYPE_CHECKING:
    from dvae.models import DiscreteVAE

_BLOCKS = 10

__all__ = ["ActiveUnits", "GradientVariance", "MeanWithError", "log_gradient_variance"]


class MeanWithError(Metric):
    """The mean of the values seen so far, and its standard error in :attr:`standard_error`; states are float64 sums.

    ``update(values)`` takes values of any shape, in any unit.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "squares", "count"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        values = values.detach().double()
        self.total += values.sum()
        self.squares += values.square().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()

    @property
    def standard_error(self) -> Tensor:
        """Standard deviation of the values over the square root of their number."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0.0)
        return (variance / (self.count - 1).clamp(min=1)).sqrt().float()


class ActiveUnits(Metric):
    """How many latents carry information: those whose mean under q(b | x) varies over the data by more than ``threshold``.

    Source: Burda et al. 2016, with the threshold .01 on the variance (for categorical latents, the sum over classes).
    ``update(mean)`` takes [B, *shape].

    Arguments:
        shape: of one example's mean: [D], or [D, C].
        threshold: smallest variance of an active unit.
    """

    full_state_update = False
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, shape: Sequence[int], threshold: float = 0.01) -> None:
        super().__init__()
        self.threshold = threshold
        self.add_state("total", default=torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor) -> None:
        mean = mean.detach().double()
        self.total += mean.sum(0)
        self.squares += mean.square().sum(0)
        self.count += mean.shape[0]

    def compute(self) -> Tensor:
        variance = self.squares / self.count - (self.total / self.count).square()
        return (variance.reshape(variance.shape[0], -1).sum(1) > self.threshold).sum()


class GradientVariance(NamedTuple):
    """Natural logarithms of the variance of one step's gradient over its noise, the mean over components, with standard errors.

    logits: of the gradient with respect to the logits of all layers, mean over examples and latents.
    encoder: of the gradient of the batch mean with respect to the encoder's parameters.
    logits_error, encoder_error: from ten blocks of draws; not a number where there are fewer than 20.
    """

    logits: float
    encoder: float
    logits_error: float
    encoder_error: float


def log_gradient_variance(model: DiscreteVAE, x: Tensor, num_draws: int = 100, seed: int = 0) -> GradientVariance:
    """The log-variance of a model's gradient at fixed parameters and a fixed batch, over draws of the noise.

    Arguments:
        model: its estimators' running statistics are not advanced.
        x: batch [B, num_pixels]; the variance of the encoder's gradient falls with B.
        num_draws: at least 2.
        seed: of the noise.

    Raises:
        InputError: ``num_draws`` is less than 2.
    """
    if num_draws < 2:
        raise InputError(f"num_draws must be at least 2, got {num_draws}")
    # Lightning evaluates in inference mode, whose tensors autograd refuses: a clone made outside of it is an ordinary one.
    with torch.inference_mode(False):
        x = model.check_input(x.clone())
    generator = torch.Generator(x.device).manual_seed(seed)
    encoder = list(model.encoders.parameters())
    training = model.training
    model.eval()
    num_blocks = _BLOCKS if num_draws >= 2 * _BLOCKS else 1
    blocks = []
    try:
        for draws in [num_draws // num_blocks + (index < num_draws % num_blocks) for index in range(num_blocks)]:
            totals: list[Tensor] = []
            squares: list[Tensor] = []
            for _ in range(draws):
                with torch.inference_mode(False), torch.enable_grad():
                    output = step_loss(model, x, model.noise(x.shape[0], generator=generator))
                    encoder_gradients = torch.autograd.grad(output.loss, encoder)
                drawn = [torch.cat([g.reshape(-1) for g in group]).double() for group in (output.gradients, encoder_gradients)]
                new = [g.square() for g in drawn]
                totals = [total + g for total, g in zip(totals, drawn, strict=True)] if totals else drawn
                squares = [square + g for square, g in zip(squares, new, strict=True)] if squares else new
            variances = [
                ((square / draws - (total / draws).square()) * draws / (draws - 1)).mean()
                for total, square in zip(totals, squares, strict=True)
            ]
            blocks.append(torch.stack(variances))
    finally:
        model.train(training)
    stacked = torch.stack(blocks)
    mean = stacked.mean(0).clamp(min=torch.finfo(torch.float64).tiny)
    error = stacked.std(0) / num_blocks**0.5 / mean if num_blocks > 1 else torch.full_like(mean, float("nan"))
    logits, encoder_variance = mean.log().tolist()
    logits_error, encoder_error = error.tolist()
    return GradientVariance(logits, encoder_variance, logits_error, encoder_error)
