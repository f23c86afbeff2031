"""Tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.utils import make_grid, save_image

from dvae.errors import InputError
from dvae.files import save_figure, written_whole
from dvae.models import DiscreteVAE

__all__ = [
    "Curve",
    "image_shape_of",
    "plot_training",
    "print_table",
    "read_curve",
    "reconstruction_grid",
    "sample_grid",
    "save_picture",
]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others are figures."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        longest = max((len(row[index]) for row in rows), default=0)
        table.add_column(
            column,
            justify="right" if index else "left",
            no_wrap=longest <= _LONGEST_FIGURE,
            min_width=min(longest, _LONGEST_FIGURE),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    console = Console()
    natural = console.measure(table, options=console.options.update(max_width=1000)).maximum
    if natural > console.width:
        table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
        # Long lines lose less than columns that are cut off.
        natural = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console = Console(width=max(natural, console.width))
    console.print(table)


def image_shape_of(num_pixels: int) -> tuple[int, int, int]:
    """(1, s, s) for a square number of pixels, else one row."""
    side = round(num_pixels**0.5)
    return (1, side, side) if side * side == num_pixels else (1, 1, num_pixels)


@torch.no_grad()
def sample_grid(
    model: DiscreteVAE,
    num_images: int = 64,
    image_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pixel probabilities of samples from the prior, as one picture [C, H, W] in [0, 1]."""
    pixels = model.sample(num_images, generator)
    return _grid(pixels, image_shape)


@torch.no_grad()
def reconstruction_grid(
    model: DiscreteVAE,
    x: Tensor,
    image_shape: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Inputs [B, num_pixels] in the odd rows and their reconstructions below them, as one picture [C, H, W] in [0, 1]."""
    reconstructed = model.reconstruct(x, generator)
    rows = []
    for start in range(0, x.shape[0], _COLUMNS):
        rows += [x[start : start + _COLUMNS], reconstructed[start : start + _COLUMNS]]
    return _grid(torch.cat(rows), image_shape)


def save_picture(picture: Tensor, path: str | Path) -> Path:
    """Write a picture [C, H, W] in [0, 1] as PNG; an InputError says when the folder cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"pictures are written as .png, got {path}")
    with written_whole(path) as temporary:
        save_image(picture, temporary)
    return path


_COLUMNS = 8
# What is longer is text, which a narrow terminal may break.
_LONGEST_FIGURE = 14


def _grid(pixels: Tensor, image_shape: Sequence[int] | None) -> Tensor:
    shape = tuple(image_shape or image_shape_of(pixels.shape[-1]))
    images = pixels.float().cpu().reshape(-1, *shape)
    # Twice the size: 28 pixels are too few to look at.
    images = torch.nn.functional.interpolate(images, scale_factor=2, mode="nearest")
    return make_grid(images, nrow=_COLUMNS, padding=4, pad_value=0.5)


class Curve(NamedTuple):
    """The training ELBO along a run: steps, seconds since the first was logged, and nats."""

    steps: list[int]
    seconds: list[float]
    elbo: list[float]


def read_curve(path: str | Path) -> Curve:
    """The training ELBO that a run logged to TensorBoard; of several runs below a folder, the newest.

    Raises:
        InputError: there is none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]  # slow

    files = sorted(Path(path).rglob("events.*"), key=lambda file: file.stat().st_mtime)
    events = EventAccumulator(str(files[-1]), size_guidance={"scalars": 0}).Reload() if files else None
    if events is None or "train/elbo" not in events.Tags()["scalars"]:
        raise InputError(f"run {path} must be a folder in which dvae fit logged train/elbo, but there is none")
    scalars = events.Scalars("train/elbo")
    start = scalars[0].wall_time
    return Curve([s.step for s in scalars], [s.wall_time - start for s in scalars], [s.value for s in scalars])


def plot_training(curves: Mapping[str, Curve], path: str | Path, levels: Mapping[str, float] | None = None) -> Path:
    """The training ELBO against steps and against seconds, as a PNG file; each point is a mean over a 300th of the run.

    Arguments:
        curves: by name.
        path: the file.
        levels: horizontal lines by name, such as published figures, nats.
    """
    from matplotlib.figure import Figure  # slow to import, and not needed without a plot

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    ends = []
    for name, curve in curves.items():
        size = max(1, len(curve.elbo) // 300)
        starts = range(0, len(curve.elbo) - size + 1, size)
        elbo = [fmean(curve.elbo[start : start + size]) for start in starts]
        ends.append(elbo[-1])
        measures: tuple[Sequence[float], ...] = (curve.steps, curve.seconds)
        for axis, values in zip(axes, measures, strict=True):
            axis.plot([fmean(values[start : start + size]) for start in starts], elbo, label=name)
    for number, (name, level) in enumerate((levels or {}).items()):
        for axis in axes:
            axis.axhline(level, color="black", linestyle=("--", ":", "-.")[number % 3], linewidth=1, label=name)
    for axis, label in zip(axes, ("steps", "seconds"), strict=True):
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
    # The first steps, from far below, would leave no room for the rest.
    axes[0].set_ylim(min(ends) - 20, max([*ends, *(levels or {}).values()]) + 2)
    axes[0].set_ylabel("training ELBO (nats)")
    axes[0].legend()
    return save_figure(figure, path)
