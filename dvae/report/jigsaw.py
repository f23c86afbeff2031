"""The jigsaw's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.utils import make_grid

if TYPE_CHECKING:
    from dvae.lab.jigsaw import JigsawRun

__all__ = ["jigsaw_picture"]


def jigsaw_picture(run: JigsawRun) -> Tensor:
    """Three rows: shuffled tiles, the network's order, and the images themselves, as one picture [3, H, W] in [0, 1]."""
    rows = torch.cat([_seen(tiles, run.grid) for tiles in (run.shuffled, run.restored, run.original)])
    large = torch.nn.functional.interpolate(rows, scale_factor=2, mode="nearest")
    return make_grid(large, nrow=len(run.original), padding=8, pad_value=0.5)


def _seen(tiles: Tensor, grid: int) -> Tensor:
    """Tiles [N, n, pixels] as images [N, 1, H, W], a line of grey between one and the next."""
    size = round(tiles.shape[-1] ** 0.5)
    lined = torch.nn.functional.pad(tiles.unflatten(-1, (size, size)), (0, 1, 0, 1), value=0.5)
    return lined.unflatten(1, (grid, grid)).transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, None]
