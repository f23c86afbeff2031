"""Data on the command line: the module that reads them, and what a model takes from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace

from dvae.config import instantiate
from dvae.data import DataModule, x_of
from dvae.data.batches import loader_of
from dvae.data.source import described
from dvae.errors import InputError
from dvae.latents import Spec
from dvae.likelihoods import Bernoulli, Likelihood
from dvae.models import FSQ, Quantizer
from dvae.models.building import network_sizes, size_of_example
from dvae.models.quantized import vectors_of

__all__ = ["build_data", "fill_in_sizes", "flags_of_source"]

_DEFAULT = (784, (1, 28, 28))
_SUFFIXES = (".npz", ".npy", ".csv", ".parquet", ".pq", ".mat", ".amat", ".gz", ".zip")


def flags_of_source(source: str) -> tuple[str, list[str]]:
    """The data module that reads a file or a folder, and the flags that tell it so; a class stays as it is."""
    if source != "bundled" and not Path(source).exists():
        if "/" in source or Path(source).suffix in _SUFFIXES:
            raise InputError(f"data must be a file, a folder or a class, got {source}, which does not exist")
        return source, []
    config = described(source)
    flags = [text for name, value in config["init_args"].items() for text in (f"--data.{name}", str(value))]
    return config["class_path"], flags


def build_data(config: Namespace) -> pl.LightningDataModule:
    """The data module of a config, which it carries with it into checkpoints."""
    described = config.as_dict()
    module = instantiate(described, pl.LightningDataModule, "data")
    if not hasattr(module, "config"):
        module.config = described  # type: ignore[attr-defined]
    return module


def fill_in_sizes(model: Namespace, data: pl.LightningDataModule) -> None:
    """Give a model's config the size of the data's examples where it says none, and its networks theirs."""
    arguments = model.init_args
    if not all(name in arguments for name in ("num_pixels", "image_shape")):
        return  # a class of the user's own, which knows its size
    if arguments.num_pixels is None and arguments.image_shape is None:
        num_pixels, shape = _size_of(data, arguments.get("input_key"))
        if shape is not None and (num_pixels, shape) != _DEFAULT:
            arguments.image_shape = list(shape)
        elif num_pixels != _DEFAULT[0]:
            arguments.num_pixels = num_pixels
    if all(name in arguments for name in ("latent", "num_latents", "num_classes", "num_layers", "likelihood")):
        latent = Spec.of(arguments.latent, arguments.num_latents, arguments.num_classes)
        _fill_in_networks(arguments, latent, arguments.num_layers)
    elif all(name in arguments for name in ("quantizer", "num_latents", "likelihood")):
        given = arguments.quantizer
        quantizer = FSQ() if given is None else instantiate(_as_dict(given), Quantizer, "quantizer")
        _fill_in_networks(arguments, vectors_of(arguments.num_latents, quantizer), 1)


def _fill_in_networks(arguments: Namespace, latent: Spec, num_layers: int) -> None:
    """Give the networks of a model the sizes that they do not say."""
    given = arguments.likelihood
    likelihood = Bernoulli() if given is None else instantiate(_as_dict(given), Likelihood, "likelihood")
    sizes = network_sizes(*size_of_example(arguments.num_pixels, arguments.image_shape), latent, likelihood, num_layers)
    for name, of_each in (("encoder", sizes.encoders), ("decoder", sizes.decoders)):
        networks = arguments.get(name)
        for network, own in zip(networks if isinstance(networks, list) else [networks], of_each, strict=False):
            known = network.get("init_args") if isinstance(network, (Namespace, dict)) else None
            for key, value in own.items():
                if known is not None and key in known and known[key] is None:
                    known[key] = value


def _as_dict(config: Any) -> Any:
    return config.as_dict() if isinstance(config, Namespace) else config


def _size_of(data: pl.LightningDataModule, input_key: Any) -> tuple[int, tuple[int, ...] | None]:
    """Values of an example, and its (channels, height, width) where it is an image."""
    if isinstance(data, DataModule):
        return data.num_pixels, data.image_shape
    # A look at the first batch must leave no trace in the run's random numbers.
    with torch.random.fork_rng(devices=[]):
        for batch in loader_of(data, "train"):
            shape = tuple(x_of(batch, input_key).shape[1:])
            return torch.Size(shape).numel(), shape if len(shape) == 3 else None
    return _DEFAULT
