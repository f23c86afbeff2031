"""Codes compared: rate against distortion, and reconstructions side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dvae.files import save_figure
from dvae.models import Autoencoder
from dvae.report.pictures import brightness

__all__ = ["Point", "draw_rows", "plot_rates", "reconstructed_rows"]


class Point(NamedTuple):
    """A method's rate in bits of an image and its PSNR in decibels, each with its standard error, NaN where there is none."""

    rate: float
    rate_error: float
    psnr: float
    psnr_error: float


def plot_rates(points: Mapping[str, Point], path: str | Path) -> Path:
    """Rate against distortion with a point for each method, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    markers = "os^Dv<>PX*"
    for number, (label, point) in enumerate(points.items()):
        axes.errorbar(
            point.rate,
            point.psnr,
            xerr=0.0 if math.isnan(point.rate_error) else point.rate_error,
            yerr=0.0 if math.isnan(point.psnr_error) else point.psnr_error,
            fmt=markers[number % len(markers)],
            capsize=3,
            label=label,
        )
    axes.set_xlabel("rate (bits of an image)")
    axes.set_ylabel("PSNR of reconstructions (dB)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(figure, path)


@torch.no_grad()
def reconstructed_rows(models: Mapping[str, Autoencoder], images: Tensor) -> dict[str, Tensor]:
    """Images [N, C, H, W] and each model's reconstructions of them, by name, in [0, 1]."""
    first = next(iter(models.values()))
    flat = first.check_input(images.to(first.device))
    shape = first.image_shape if images.dim() == 2 else tuple(images.shape[1:])
    assert shape is not None
    rows = {"originals": brightness(first, flat.float().cpu()).reshape(-1, *shape)}
    for name, model in models.items():
        generator = torch.Generator().manual_seed(0)
        pixels = model.reconstruct(flat.to(model.device), generator).float().cpu()
        rows[name] = brightness(model, pixels).reshape(-1, *shape)
    return rows


def draw_rows(rows: Mapping[str, Tensor], path: str | Path) -> Path:
    """Rows of images [N, C, H, W] in [0, 1], each with its name, as a PNG file."""
    from matplotlib.figure import Figure

    count = max(len(images) for images in rows.values())
    figure = Figure(figsize=(0.9 * count + 1.8, 0.9 * len(rows)))
    for line, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axes = figure.add_subplot(len(rows), count, line * count + column + 1)
            axes.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    figure.subplots_adjust(left=1.7 / (0.9 * count + 1.8), right=0.995, top=0.995, bottom=0.005, wspace=0.04, hspace=0.04)
    return save_figure(figure, path)
