"""A data set's codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvae.data import examples_of
from dvae.lab.evaluate import sized_for
from dvae.models import Autoencoder

__all__ = ["Codes", "encode", "encode_labelled"]


class Codes(NamedTuple):
    """The codes of some examples.

    codes: [N, L D], see :meth:`dvae.models.VAE.codes`, on the CPU.
    labels: [N], those of the data; None where they have none.
    """

    codes: Tensor
    labels: Tensor | None


@torch.no_grad()
def encode_labelled(model: Autoencoder, data: Any, split: str = "test", batch_size: int = 1000) -> Codes:
    """The most probable code of each example, with its label.

    Arguments:
        model: a trained model.
        data: see :func:`dvae.data.examples_of`.
        split: "train", "valid" or "test".
        batch_size: how many are encoded at a time.

    Raises:
        InputError: the examples have another size, or values that the model's likelihood does not take.
    """
    codes, labels = [], []
    examples = examples_of(data, split, input_key=getattr(model, "input_key", None))
    if model.grid is not None:
        model = sized_for(model, examples)
    for piece in examples.pieces(batch_size):
        codes.append(model.codes(model.check_input(piece.x.to(model.device))).cpu())
        labels += [] if piece.labels is None else [piece.labels.cpu()]
    return Codes(torch.cat(codes), torch.cat(labels) if len(labels) == len(codes) else None)


@torch.no_grad()
def encode(model: Autoencoder, examples: Tensor, batch_size: int = 1000) -> Tensor:
    """The most probable code of each example, see :meth:`dvae.models.VAE.codes`; [N, L D], on the CPU.

    Arguments:
        model: a trained model.
        examples: [N, num_pixels], of values that the model's likelihood takes.
        batch_size: how many are encoded at a time.

    Raises:
        InputError: the examples have another size, or other values.
    """
    return torch.cat([model.codes(model.check_input(x.to(model.device))).cpu() for x in examples.split(batch_size)])
