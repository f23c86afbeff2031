"""The variance of a model's gradient at fixed parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.training.step import step_loss

if TYPE_CHECKING:
    from dvae.models import VAE

__all__ = ["GradientVariance", "log_gradient_variance"]


_BLOCKS = 10


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


def log_gradient_variance(model: VAE, x: Tensor, num_draws: int = 100, seed: int = 0) -> GradientVariance:
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
    generator = torch.Generator().manual_seed(seed)
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
