"""The LightningModule that trains an autoencoder whose code is quantised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dvae.likelihoods import Likelihood
from dvae.metrics import CodeRate, MeanWithError
from dvae.models.quantized import Quantized
from dvae.models.quantizers import Quantizer
from dvae.training.single import Trainable
from dvae.training.step import StepOutput

__all__ = ["QuantizedAutoencoder"]


class QuantizedAutoencoder(Quantized, Trainable):
    """An autoencoder whose code is quantised: FSQ, LFQ, BSQ or VQ in the place of latents and their gradient estimator.

    The model is :class:`dvae.models.Quantized`; runs, data, checkpoints and commands are those of :class:`dvae.DiscreteVAE`, with
    ``val/reconstruction`` (nats) and ``val/rate`` (bits) in place of the bounds. A step is not compiled, and there are no
    replicas.

    Arguments:
        quantizer, encoder, decoder, likelihood, num_pixels, image_shape, num_latents: of the model, see
            :class:`dvae.models.Quantized`.
        lr, betas, eps, weight_decay, optimizer, lr_scheduler, gradient_clip_norm, accumulate_grad_batches, steps_per_execution,
            seed, input_key: as of :class:`dvae.DiscreteVAE`; a step has no noise of its own.

    Raises:
        InputError: an argument is outside its range or does not fit the others.
    """

    # There is no phi.
    phi_warmup_steps = 0
    headline = "reconstruction"
    compiles = False

    def __init__(
        self,
        quantizer: Quantizer | dict[str, Any] | None = None,
        encoder: nn.Module | dict[str, Any] | None = None,
        decoder: nn.Module | dict[str, Any] | None = None,
        likelihood: Likelihood | dict[str, Any] | None = None,
        *,
        num_pixels: int | None = None,
        image_shape: Sequence[int] | None = None,
        num_latents: int = 64,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
        accumulate_grad_batches: int = 1,
        steps_per_execution: int = 1,
        seed: int | None = None,
        input_key: int | str | None = None,
    ) -> None:
        super().__init__(
            quantizer, encoder, decoder, likelihood, num_pixels=num_pixels, image_shape=image_shape, num_latents=num_latents
        )
        self.save_hyperparameters(self.config["init_args"])
        self.set_up(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            gradient_clip_norm=gradient_clip_norm,
            accumulate_grad_batches=accumulate_grad_batches,
            steps_per_execution=steps_per_execution,
            seed=seed,
            input_key=input_key,
        )
        self.val_reconstruction = MeanWithError()
        self.val_rate = CodeRate(num_latents, self.quantizer.num_values, self.latent.num_per_symbol)

    def phi(self) -> list[nn.Parameter]:
        """None: nothing is estimated."""
        return []

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The one group of the optimizer."""
        return [{"params": self.theta(), "lr": self.lr, "weight_decay": self.weight_decay}]

    def training_noise(self, batch_size: int, stream: Tensor | int, iteration: Tensor | int) -> list[Tensor]:
        """None: a step has no noise."""
        return []

    def step(self, x: Tensor, noise: Sequence[Tensor]) -> StepOutput:
        """The loss of one step."""
        terms = self.terms(x)
        reconstruction = terms.reconstruction.mean()
        loss = self.num_pixels * terms.loss - reconstruction
        metrics = {"reconstruction": reconstruction.detach(), "quantizer_loss": terms.loss.detach()}
        return StepOutput(loss, metrics, [])

    def _may_be_whole(self) -> bool:
        return False

    figures = ["reconstruction", "rate"]

    def measure(self, x: Tensor, rank: int, batch_idx: int) -> None:
        """Add a validation batch."""
        quantised = self.quantize(x)
        self.val_reconstruction.update(self.likelihood.log_prob(x, self.decode(quantised.values)))
        self.val_rate.update(quantised.code)

    def measured(self) -> dict[str, Tensor]:
        """The validation's :attr:`figures` by name, [] each."""
        return {"reconstruction": self.val_reconstruction.compute(), "rate": self.val_rate.compute().to(torch.float32)}

    def reset_metrics(self) -> None:
        """Let the next validation start from nothing."""
        self.val_reconstruction.reset()
        self.val_rate.reset()
