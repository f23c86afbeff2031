"""How alike a model's images are to those of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvae.metrics import CodeRate, MeanWithError, frechet_distance, psnr, ssim
from dvae.models import VAE, Autoencoder
from dvae.training.measures import images_of, require_images

__all__ = ["Frechet", "Likeness", "Mean"]

# Of SSIM, pixels of a side.
_SSIM_WINDOW = 11
# Samples that are drawn at a time.
_AT_A_TIME = 100


class Mean(NamedTuple):
    """A mean over examples with its standard error, in nats where nothing else is said."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, metric: MeanWithError) -> Mean:
        """What a metric has added up."""
        return cls(metric.compute().item(), metric.standard_error.item())


class Likeness:
    """How alike examples and their reconstructions are, and how many bits the codes between them take.

    PSNR and SSIM are of images of more than two levels.

    Arguments:
        model: whose reconstructions they are.
        shape: of an example.
    """

    def __init__(self, model: Autoencoder, shape: Sequence[int]) -> None:
        self.shape, latent = tuple(shape), model.latent
        self.mse = MeanWithError().to(model.device)
        self.code: CodeRate | None = None
        if latent.num_values is not None:
            self.code = CodeRate(latent.num_variables, latent.num_values, latent.num_per_symbol).to(model.device)
        low, high = model.likelihood.low, model.likelihood.high
        self.range = high - low
        has_levels = math.isfinite(self.range) and not (model.likelihood.whole and self.range == 1)
        names = ("psnr", "ssim") if min(self.shape[1:], default=0) >= _SSIM_WINDOW else ("psnr",)
        is_image = len(self.shape) == 3 and self.shape[0] in (1, 3)
        self.metrics = {name: MeanWithError().to(model.device) for name in names if is_image and has_levels}

    def update(self, x: Tensor, reconstructed: Tensor, code: Tensor) -> None:
        """x and its reconstruction [B, num_pixels], and the code of whole numbers [B, D] between them."""
        self.mse.update((x - reconstructed).double().square().mean(-1))
        if self.code is not None:
            self.code.update(code)
        if not self.metrics:
            return
        images, others = (flat.unflatten(-1, self.shape) for flat in (x, reconstructed))
        for name, metric in self.metrics.items():
            metric.update((psnr if name == "psnr" else ssim)(images, others, self.range))

    def of(self, name: str) -> Mean | None:
        """The mean over images."""
        return Mean.of(self.metrics[name]) if name in self.metrics else None

    def of_code(self, name: str) -> float | None:
        """The codes' rate in bits, or the perplexity of a symbol; None where they cannot be counted."""
        if self.code is None:
            return None
        return (self.code.compute() if name == "rate" else self.code.perplexity).item()


class Frechet:
    """Fréchet distances of images from their reconstructions and from samples of the prior.

    See :func:`dvae.metrics.frechet_distance`.

    Arguments:
        model: whose they are.
        shape: of an example; of flat ones the model's own is taken.
        features: a network, or its import path.

    Raises:
        InputError: the data are no images in a range, or the network does not take them.
    """

    def __init__(self, model: VAE, shape: Sequence[int], features: nn.Module | str) -> None:
        shape = tuple(shape) if len(shape) == 3 else model.image_shape or ()
        require_images(model, shape)
        self.model, self.shape = model, shape
        self.metric = frechet_distance(features, shape).to(model.device)

    def update(self, x: Tensor, reconstructed: Tensor) -> None:
        """x and its reconstruction, [B, num_pixels]."""
        self.metric.update(images_of(self.model, x, self.shape), real=True)
        self.metric.update(images_of(self.model, reconstructed, self.shape), real=False)

    def compute(self, seed: int) -> tuple[float, float]:
        """The distance of as many samples as there were images, and that of their reconstructions."""
        of_reconstructions = self.metric.compute().item()
        number = int(self.metric.real_features_num_samples)
        self.metric.reset()  # the images' statistics stay
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, number, _AT_A_TIME):
            samples = self.model.sample(min(_AT_A_TIME, number - first), generator)
            self.metric.update(images_of(self.model, samples, self.shape), real=False)
        return self.metric.compute().item(), of_reconstructions
