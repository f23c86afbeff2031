"""A data set's codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvae.data import examples_of
from dvae.errors import InputError
from dvae.lab.evaluate import sized_for
from dvae.metrics import CodeEntropy, CodeRate
from dvae.models import VAE, Autoencoder, Quantized

__all__ = ["Codes", "encode", "encode_labelled", "entropies"]


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


@torch.no_grad()
def entropies(
    model: Autoencoder, data: Any, split: str = "test", *, num_examples: int | None = None, seed: int = 0
) -> list[Tensor]:
    """How many bits of information each latent has over a data set, of each layer [D].

    Of a code on a grid D are the latents of one place, see :class:`dvae.metrics.CodeEntropy`; of a quantised autoencoder all
    vectors, by the frequencies of their values.

    Arguments:
        model: a trained model.
        data: see :func:`dvae.data.examples_of`.
        split: "train", "valid" or "test".
        num_examples: so many of the split, drawn without replacement; by default all.
        seed: of the examples, and of the samples that deeper layers are given.

    Raises:
        InputError: the latents' values cannot be counted, or the data do not fit the model.
    """
    if model.latent.num_values is None:
        raise InputError(f"entropies are of latents with values to count, got {model.latent.family.__name__}")
    examples = examples_of(data, split, input_key=getattr(model, "input_key", None))
    model = sized_for(model, examples)
    generator = torch.Generator().manual_seed(seed)
    metrics = _entropy_metrics(model)
    pieces = (piece.x for piece in examples.pieces(1000)) if num_examples is None else examples.some(num_examples, seed).split(1000)
    for piece in pieces:
        x = model.check_input(piece.to(model.device))
        if isinstance(model, VAE):
            for metric, layer in zip(metrics, model.sample_layers(x, 1, generator), strict=True):
                metric.update(layer.q.mean)
        else:
            metrics[0].update(model.code_of(x))
    return [(own.entropies if isinstance(own, CodeRate) else own.compute()).reshape(-1).cpu() for own in metrics]


def _entropy_metrics(model: Autoencoder) -> list[CodeEntropy | CodeRate]:
    if isinstance(model, Quantized):
        return [CodeRate(model.num_latents, model.quantizer.num_values).to(model.device)]
    return [CodeEntropy(model.latent.place_shape).to(model.device) for _ in range(model.num_layers)]
