"""What models draw: samples, reconstructions, and what single latents do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dvae.lab.report.effort import Effort, Progress, name_of_first, of_each
from dvae.lab.report.runs import Opened, Run
from dvae.lab.traverse import effects, picture_of_effects, picture_of_walks
from dvae.report.page import Block, Picture
from dvae.report.pictures import reconstruction_grid, sample_grid

__all__ = ["reconstructions", "samples", "traversal"]

_IMAGES = 32
_LATENTS, _WALKS = 12, 6


def samples(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """Pictures of what each run's prior draws."""

    def draw(opened: Opened, generator: torch.Generator) -> torch.Tensor:
        return sample_grid(opened.latent_model, _IMAGES, opened.image_shape, generator)

    return _drawn(runs, effort, progress, "samples", draw, f"{_IMAGES} images drawn from the prior of {{}}")


def reconstructions(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """Pictures of the same examples and what each run makes of their codes."""

    def draw(opened: Opened, generator: torch.Generator) -> torch.Tensor:
        return reconstruction_grid(opened.model, opened.inputs(_IMAGES // 2, effort.seed), opened.image_shape, generator)

    alt = "Rows of images and, below each, their reconstructions by {}"
    return _drawn(runs, effort, progress, "reconstructions", draw, alt)


def _drawn(
    runs: Sequence[Run],
    effort: Effort,
    progress: Progress,
    what: str,
    draw: Callable[[Opened, torch.Generator], torch.Tensor],
    alt: str,
) -> list[Block]:
    """One picture of each run."""

    def picture(run: Run) -> list[Block]:
        name = name_of_first(run)
        generator = torch.Generator().manual_seed(effort.seed)
        return [Picture(name, draw(run.opened, generator), alt.format(name))]

    return of_each(runs, progress, what, picture)


def traversal(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """Pictures of the latents that change images most, and of walks from code to code."""

    def draw(run: Run) -> list[Block]:
        opened, name = run.opened, name_of_first(run)
        model, shape = opened.latent_model, opened.image_shape
        x = opened.inputs(max(effort.num_codes, 2 * _WALKS), effort.seed)
        codes = model.codes(x)[:, : model.num_latents]
        pictures: list[Block] = []
        if model.latent.num_values is not None:
            own = codes[: effort.num_codes]
            latents = effects(model, own).argsort(descending=True)[:_LATENTS].tolist()
            listed = ", ".join(map(str, latents))
            alt = f"A row each for latents {listed} of {name}, each at its values; the last column is where it changes pixels"
            title = f"{name}: latents {listed}, and where each changes images"
            pictures.append(Picture(title, picture_of_effects(model, own, latents, shape), alt))
        if pairs := min(_WALKS, len(codes) // 2):
            alt = f"{pairs} walks in 8 steps from one image's code to another's, by {name}"
            picture = picture_of_walks(model, codes[: 2 * pairs], shape, effort.seed)
            pictures.append(Picture(f"{name}: from code to code", picture, alt))
        return pictures

    return of_each(runs, progress, "traversal", draw)
