"""A data set's codes."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.training.module import DiscreteVAE

__all__ = ["encode"]


@torch.no_grad()
def encode(model: DiscreteVAE, examples: Tensor, batch_size: int = 1000) -> Tensor:
    """The most probable code of each example, all layers side by side, [N, L D].

    Bits or classes, uint8, or the means of Gaussian latents. A layer's code is the mode of its distribution given the mode of the
    layer before.

    Arguments:
        examples: [N, num_pixels], in [0, 1].
        batch_size: how many are encoded at a time.
    """
    codes = []
    for x in examples.split(batch_size):
        x = model.check_input(x.to(model.device))
        layers: list[Tensor] = []
        for index in range(model.num_layers):
            layers.append(model.infer(index, x, layers).mode())
        codes.append(torch.cat([model.latent.code(layer) for layer in layers], dim=-1).cpu())
    return torch.cat(codes)
