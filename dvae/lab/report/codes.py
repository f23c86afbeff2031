"""How codes are used, and what they find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import torch

from dvae.errors import InputError
from dvae.lab.codes import entropies
from dvae.lab.evaluate import Mean
from dvae.lab.report.effort import Effort, Progress, figure_cell, name_of_first, of_each
from dvae.lab.report.runs import Run
from dvae.lab.retrieval import picture_of_neighbours, retrieve
from dvae.report.charts import Band, band_chart
from dvae.report.page import Block, Cell, Chart, Note, Picture, Table

__all__ = ["bits", "retrieval"]

_NEIGHBOURS = 10


def bits(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """The entropy of each latent as a chart, with bands over replicas, and its mean as a table."""
    places = {run.label: place for place, run in enumerate(runs)}
    looks: dict[str, tuple[int, int]] = {}
    bands: dict[str, Band] = {}
    rows: list[list[Cell]] = []
    notes: list[Block] = []
    shown = 0
    for run in runs:
        progress(f"{run.label}: entropies")
        try:
            found = _entropies(run, effort)
        except InputError as error:
            notes.append(Note(run.label, f"has none: {error}"))
            continue
        for (setting, layer), models in found.items():
            label = ", ".join(part for part in (run.label, setting, layer) if part)
            looks[label] = (places[run.label], len(looks) - shown)
            bands[label] = _band(models)
            rows.append(_entropy_cells(label, run, models))
        shown = len(looks)
    if not bands:
        return notes
    alt = "; ".join(f"{name}: {len(band.x)} latents, mean entropy {fmean(band.mean):.3g} bits" for name, band in bands.items())
    chart = Chart("Entropy of each latent, sorted", band_chart(bands, "latent, by rank", "bits", from_zero=True, looks=looks), alt)
    columns = ["run", "latents", "values", "mean entropy (bits)", "latents above 0.01 bits", "below 10% of the most"]
    return [chart, Table("How much of the code is used; ± between replicas", columns, rows), *notes]


def _entropies(run: Run, effort: Effort) -> dict[tuple[str, str], torch.Tensor]:
    """By a sweep's setting and the layer, [R, D] of R models."""
    found: dict[tuple[str, str], list[torch.Tensor]] = {}
    for replica in run.replicas:
        own = run.open(replica)
        layers = entropies(own.model, own.examples, num_examples=effort.num_examples, seed=effort.seed)
        for index, layer in enumerate(layers):
            name = f"layer {index + 1}" if len(layers) > 1 else ""
            found.setdefault((run.setting(replica), name), []).append(layer)
    return {key: torch.stack(models) for key, models in found.items()}


def _band(models: torch.Tensor) -> Band:
    ordered = models.sort(1, descending=True).values
    spread = ordered.std(0) if len(ordered) > 1 else torch.zeros(ordered.shape[1])
    return Band(list(range(1, ordered.shape[1] + 1)), ordered.mean(0).tolist(), spread.tolist())


def _entropy_cells(label: str, run: Run, models: torch.Tensor) -> list[Cell]:
    number = run.opened.model.latent.num_values or 0
    means = models.mean(1).tolist()
    mean = Mean(fmean(means), stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan)
    above, below = (own.float().sum(1).mean().item() for own in (models > 0.01, models < 0.1 * math.log2(max(number, 2))))
    count = models.shape[1]
    return [
        Cell(label),
        Cell(str(count), count),
        Cell(str(number), number),
        figure_cell(mean, 4),
        Cell(f"{above:.4g} ({above / count:.0%})", above),
        Cell(f"{below:.4g} ({below / count:.0%})", below),
    ]


def retrieval(runs: Sequence[Run], effort: Effort, progress: Progress) -> list[Block]:
    """Figures of search by codes, where there are labels, and pictures of neighbours."""
    rows: list[list[Cell]] = []

    def search(run: Run) -> list[Block]:
        opened = run.opened
        model = opened.latent_model
        split, trust = run.source.split, run.source.trust
        number = effort.num_queries
        found = retrieve(model, opened.data, split=split, num_queries=number, k=[_NEIGHBOURS], seed=effort.seed, trust=trust)
        for name, own in (found.figures or {}).items():
            rows.append([Cell(name_of_first(run)), Cell(name), *(figure_cell(mean, 4) for mean in own.means)])
        blocks: list[Block] = []
        if found.figures is None:
            blocks.append(Note(run.label, "has no figures: its data have no labels that both sets have"))
        if getattr(opened.data, "are_images", True):
            picture = picture_of_neighbours(model, found, getattr(opened.data, "image_shape", None) or model.image_shape)
            alt = f"Rows of an image of {split} and the training images whose codes of {name_of_first(run)} are nearest"
            blocks.append(Picture(f"{name_of_first(run)}: images in the first column, their nearest beside them", picture, alt))
        return blocks

    blocks = of_each(runs, progress, "retrieval", search)
    columns = [
        "run",
        "code",
        f"precision of {_NEIGHBOURS}",
        "average precision",
        f"vote of {_NEIGHBOURS} neighbours",
        "linear probe",
    ]
    title = f"Search by codes, {effort.num_queries:,} queries at most; means and standard errors over queries"
    return [*([Table(title, columns, rows)] if rows else []), *blocks]
