"""A data set's codes."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.models import VAE

__all__ = ["encode"]


@torch.no_grad()
def encode(model: VAE, examples: Tensor, batch_size: int = 1000) -> Tensor:
    """The most probable code of each example, see :meth:`dvae.models.VAE.codes`; [N, L D], on the CPU.

    Arguments:
        model: a trained model.
        examples: [N, num_pixels], in the likelihood's range.
        batch_size: how many are encoded at a time.

    Raises:
        InputError: the examples have another size, or values outside the range.
    """
    return torch.cat([model.codes(model.check_input(x.to(model.device))).cpu() for x in examples.split(batch_size)])
