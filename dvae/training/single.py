"""One model and its run: the arguments of its training, the data that it starts from, and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from dvae.data import DataModule, x_of
from dvae.errors import InputError
from dvae.likelihoods import check_values
from dvae.models.autoencoder import Autoencoder
from dvae.models.building import require_at_least
from dvae.noise import noise_stream, seeded_generator
from dvae.training import lightning
from dvae.training.run import Training

if TYPE_CHECKING:
    from dvae.training.module import DiscreteVAE

__all__ = ["VALIDATE", "Trainable"]

# Separates the noise of validation from the noise of training under one seed.
_TRAIN = 0
VALIDATE = 1


class Trainable(Autoencoder, Training):
    """An autoencoder that is trained by itself: what :class:`dvae.DiscreteVAE` and :class:`dvae.QuantizedAutoencoder` share.

    The arguments of :meth:`set_up` are the constructor's of both, and explained there.
    """

    headline = "elbo"
    """What of the log is shown beside the progress bar."""

    def set_up(
        self,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        optimizer: dict[str, Any] | None,
        lr_scheduler: dict[str, Any] | None,
        gradient_clip_norm: float | None,
        accumulate_grad_batches: int,
        steps_per_execution: int,
        seed: int | None,
        input_key: int | str | None,
    ) -> None:
        """Keep what a run needs to know.

        Raises:
            InputError: an argument is outside its range.
        """
        require_at_least(1, accumulate_grad_batches=accumulate_grad_batches, steps_per_execution=steps_per_execution)
        require_at_least(0, lr=lr, weight_decay=weight_decay, eps=eps)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas must be two numbers in [0, 1), got {betas}")
        if gradient_clip_norm is not None and not gradient_clip_norm > 0:
            raise InputError(f"gradient_clip_norm must be positive or None, got {gradient_clip_norm}")
        self.lr = lr
        self.betas, self.eps, self.weight_decay = (betas[0], betas[1]), eps, weight_decay
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.gradient_clip_norm = gradient_clip_norm
        self.accumulate_grad_batches, self.steps_per_execution = accumulate_grad_batches, steps_per_execution
        self.seed = torch.initial_seed() if seed is None else seed
        self.input_key = input_key

    @property
    def models(self) -> Sequence[DiscreteVAE]:  # type: ignore[override]
        """The model itself, alone."""
        return [self]  # type: ignore[list-item]

    # What changes from step to step without being a tensor; a compiled step must not look at it.

    clock_was_read = False
    _iteration: int

    @property
    def iteration(self) -> int:
        """Batches trained on so far."""
        self._note_reading()
        return self._iteration

    @iteration.setter
    def iteration(self, value: int) -> None:
        # A module's own way looks for parameters and modules of the name, every step.
        object.__setattr__(self, "_iteration", value)

    @property
    def trainer(self) -> pl.Trainer:
        """The trainer that the module is in, as in Lightning."""
        self._note_reading()
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: pl.Trainer | None) -> None:
        pl.LightningModule.trainer.fset(self, trainer)  # type: ignore[attr-defined]

    def _note_reading(self) -> None:
        if not self.clock_was_read:
            self.clock_was_read = True

    def start_training(self, trainer: pl.Trainer) -> None:
        """Set the data's mean where it is not set."""
        if self.mean_is_set:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if (mean := getattr(data, "mean", None)) is not None:
            std = getattr(data, "std", None) if self.likelihood.needs_std else None
        else:
            mean, std = self.mean_of_batches(trainer)
        self.set_mean(mean.to(self.mean), None if std is None else std.to(self.mean))

    def check_data(self, data: DataModule) -> None:
        """Nothing, or a warning where the data make the ELBO a cross-entropy.

        Raises:
            InputError: the data have another size, or values that the likelihood does not take.
        """
        if data.num_pixels != self.num_pixels:
            shape = "" if data.image_shape is None else f" or image_shape={data.image_shape}"
            raise InputError(
                f"num_pixels must be {data.num_pixels}, the values of an example of the data, got {self.num_pixels}: build the "
                f"model with num_pixels={data.num_pixels}{shape}"
            )
        covered = True
        for name in ("train", "valid"):
            if name in data.split_names:
                # All of what is in memory, some of the rest, whose batches are checked one by one.
                examples = data.examples(name)
                for piece in examples.pieces(10_000) if data.in_memory else [(examples.some(1000),)]:
                    check_values(self.likelihood, piece[0])
                    covered = covered and self.likelihood.covers(piece[0])
        if not covered:
            rank_zero_warn(
                f"the data have values that {type(self.likelihood).__name__} gives no probability to, such as grey levels: what is "
                "trained and called ELBO is a cross-entropy and no bound on log p(x)"
            )

    def mean_of_batches(self, trainer: pl.Trainer) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of what the training loader gives in an epoch, float [num_pixels] each."""
        total, squares, count = (torch.zeros_like(self.mean, dtype=torch.float64) for _ in range(3))
        for batch in lightning.gone_through_apart(trainer.train_dataloader) or ():
            x = self.flat_input(x_of(batch, self.input_key).to(self.mean.device)).double()
            total, squares, count = total + x.sum(0), squares + x.square().sum(0), count + x.shape[0]
        sums, run = torch.stack([total, squares, count]), trainer.lightning_module
        if not (isinstance(run, Training) and run.apart):
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        mean = sums[0] / sums[2].clamp(min=1)
        return mean, (sums[1] / sums[2].clamp(min=1) - mean.square()).clamp(min=0).sqrt()

    def noise_stream(self, rank: int) -> int:
        """Where the training noise of one process comes from; see :meth:`dvae.models.VAE.training_noise`."""
        return noise_stream(self.seed, _TRAIN, rank)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The codes of a batch, see :meth:`dvae.models.VAE.codes`."""
        return self.codes(self._input(self, batch))

    def _seeded(self, *counters: int) -> torch.Generator:
        """A generator for these counters under the model's seed."""
        return seeded_generator(torch.Generator(), self.seed, *counters)
