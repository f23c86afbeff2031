"""Lightning callbacks: pictures and the variance of the gradient along a run."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.metrics import log_gradient_variance
from dvae.models import DiscreteVAE
from dvae.report import reconstruction_grid, sample_grid, save_picture

__all__ = ["Pictures", "VarianceMonitor"]


class Pictures(pl.Callback):
    """After every validation, shows samples and reconstructions: to TensorBoard, and as PNG files in the run's folder.

    Arguments:
        num_images: images in each picture.
    """

    def __init__(self, num_images: int = 64) -> None:
        if num_images < 1:
            raise InputError(f"num_images must be at least 1, got {num_images}")
        self.num_images = num_images

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning broadcasts the folder to all processes: one that does not ask leaves the others waiting.
        folder = trainer.log_dir
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(pl_module, DiscreteVAE):
            return
        shape = getattr(trainer.datamodule, "image_shape", None)  # type: ignore[attr-defined]
        generator = torch.Generator(pl_module.device).manual_seed(0)
        pictures = {"samples": sample_grid(pl_module, self.num_images, shape, generator)}
        x = _validation_examples(trainer, pl_module, self.num_images // 2)
        if x is not None:
            pictures["reconstructions"] = reconstruction_grid(pl_module, x, shape, generator)
        for name, picture in pictures.items():
            for logger in trainer.loggers:
                if isinstance(logger, pl.loggers.TensorBoardLogger):
                    logger.experiment.add_image(name, picture, trainer.global_step)
            if trainer.logger is not None and folder is not None:
                save_picture(picture, Path(folder) / f"{name}.png")


class VarianceMonitor(pl.Callback):
    """After every validation, logs the log-variance of the gradient on a fixed batch of validation examples.

    Arguments:
        num_draws: draws of the noise.
        batch_size: examples in the batch.
    """

    def __init__(self, num_draws: int = 50, batch_size: int = 24) -> None:
        if num_draws < 2 or batch_size < 1:
            raise InputError(f"num_draws must be at least 2 and batch_size at least 1, got {num_draws} and {batch_size}")
        self.num_draws = num_draws
        self.batch_size = batch_size

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, DiscreteVAE):
            return
        x = _validation_examples(trainer, pl_module, self.batch_size)
        if x is None:
            return
        variance = log_gradient_variance(pl_module, x, self.num_draws)
        pl_module.log("val/log_variance_logits", variance.logits, sync_dist=True)
        pl_module.log("val/log_variance_encoder", variance.encoder, sync_dist=True)


def _validation_examples(trainer: pl.Trainer, model: DiscreteVAE, count: int) -> Tensor | None:
    """The first validation examples, or None where there are none."""
    loaders = trainer.val_dataloaders
    for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
        for batch in loader or ():
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            return model.check_input(x[:count].to(model.device))
    return None
