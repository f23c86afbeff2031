"""A callback that logs further metrics after every validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from dvae.config import instantiate
from dvae.data import x_of
from dvae.errors import InputError
from dvae.metrics import frechet_distance
from dvae.models import VAE
from dvae.training.run import Training

__all__ = ["Measures", "images_of", "require_images"]

_FRECHET = "frechet_distance"


class Measures(pl.Callback):
    """After every validation, logs metrics, torchmetrics' or :mod:`dvae.metrics`', as ``val/NAME``; after a test as ``test/NAME``.

    A metric that gives one number for each latent is logged as their mean, and one that gives a square, such as
    :class:`dvae.metrics.BitInformation`, as the mean off its diagonal. Of replicas each is measured. Metrics are instances or
    configs ``{"class_path": ..., "init_args": {...}}``.

    Arguments:
        reconstructions: metrics by name whose ``update`` takes reconstructions and images, [B, C, H, W] in [0, 1] each, such as
            ``torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)``; a reconstruction is from one sampled code.
        codes: metrics by name whose ``update`` takes E[b] of the first layer under q(b | x), such as
            :class:`dvae.metrics.CodeUsage`.
        features: a network, or its import path, see :func:`dvae.metrics.frechet_distance`: then ``frechet_distance`` is that of
            images and their reconstructions.

    Raises:
        InputError: nothing is to be measured, a name is taken twice, or what is given is no metric; when training starts: the data
            are no images in a range, where images are measured.
    """

    def __init__(
        self,
        reconstructions: Mapping[str, Any] | None = None,
        codes: Mapping[str, Any] | None = None,
        features: str | nn.Module | None = None,
    ) -> None:
        self.reconstructions = _metrics(reconstructions, "reconstructions")
        self.codes = _metrics(codes, "codes")
        self.features = features
        self._names = [*self.reconstructions, *self.codes, *([_FRECHET] if features is not None else [])]
        if not self._names:
            raise InputError("measures must have reconstructions, codes or features to measure, got none")
        if len(set(self._names)) < len(self._names):
            raise InputError(f"measures must have different names, got {', '.join(self._names)}")
        self._running: dict[int, dict[str, Metric]] = {}

    @property
    def _needs_images(self) -> bool:
        return bool(self.reconstructions) or self.features is not None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, Training):
            raise InputError(f"measures need a model of dvae, got {type(pl_module).__name__}")
        model = pl_module.models[0]
        if self._needs_images:
            require_images(model, model.image_shape)
        self._running = {}

    def _of(self, index: int, model: VAE, apart: bool) -> dict[str, Metric]:
        """The metrics of one model, made when it is first measured."""
        if index not in self._running:
            own: dict[str, Metric] = copy.deepcopy({**self.reconstructions, **self.codes})
            if self.features is not None:
                own[_FRECHET] = frechet_distance(self.features, model.image_shape or ())
            for metric in own.values():
                metric.to(model.device)
                if apart:  # what another process measures is of another model
                    metric.distributed_available_fn = _alone
            self._running[index] = own
        return self._running[index]

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        assert isinstance(pl_module, Training)
        for index in pl_module.active:
            model = pl_module.models[index]
            x = model.flat_input(x_of(batch, model.input_key))
            # Noise of its own: what is trained does not depend on what is measured.
            generator = torch.Generator().manual_seed(batch_idx)
            self._add(self._of(index, model, pl_module.apart), model, x, generator)

    on_test_batch_end = on_validation_batch_end

    @torch.no_grad()
    def _add(self, metrics: Mapping[str, Metric], model: VAE, x: Tensor, generator: torch.Generator) -> None:
        layer = model.sample_layers(x, 1, generator)[0]
        for name in self.codes:
            metrics[name].update(layer.q.mean)
        if not self._needs_images:
            return
        shape = model.image_shape or ()
        images = images_of(model, x, shape)
        others = images_of(model, model.likelihood.mean(model.decode(layer.sample[0])), shape)
        for name in self.reconstructions:
            metrics[name].update(others, images)
        if self.features is not None:
            metrics[_FRECHET].update(images, real=True)
            metrics[_FRECHET].update(others, real=False)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._log(pl_module, "test")

    def _log(self, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Training)
        own = [self._running[index] for index in pl_module.active if index in self._running]
        for name in self._names:
            values = [_number(metrics[name].compute()).cpu() for metrics in own]
            pl_module.log_each(f"{stage}/{name}", torch.stack(values) if values else torch.zeros(0), prog_bar=False)
        self._running = {}


def _number(value: Tensor) -> Tensor:
    value = value.float()
    if value.dim() == 2 and value.shape[0] == value.shape[1] > 1:
        return (value.sum() - value.trace()) / (value.numel() - len(value))
    return value.mean()


def _alone() -> bool:
    return False


def _metrics(given: Mapping[str, Any] | None, name: str) -> dict[str, Metric]:
    if not isinstance(given, Mapping | None):
        raise InputError(f"{name} must be a mapping from names to metrics, got {given!r}")
    base: Any = Metric  # abstract, which mypy takes for a mistake
    return {key: instantiate(value, base, f"{name}.{key}") for key, value in (given or {}).items()}


def require_images(model: VAE, shape: Sequence[int] | None) -> None:
    """An InputError where x is no image of values in a range."""
    if shape is None or len(shape) != 3:
        raise InputError(f"images are measured, but the model's data are none: give it an image_shape, got {shape}")
    low, high = model.likelihood.low, model.likelihood.high
    if not math.isfinite(high - low):
        raise InputError(f"images are measured in a range, which {type(model.likelihood).__name__} has not: from {low} to {high}")


def images_of(model: VAE, flat: Tensor, shape: Sequence[int]) -> Tensor:
    """Values of x [*, num_pixels] as images [*, C, H, W], from the likelihood's range to [0, 1]."""
    low, high = model.likelihood.low, model.likelihood.high
    return ((flat - low) / (high - low)).clamp(0, 1).unflatten(-1, tuple(shape))
