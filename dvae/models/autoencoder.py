"""What every autoencoder of the library has, whatever its code is made of: networks, a likelihood, and the data's statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.likelihoods import check_values
from dvae.models.spatial import Spatial

__all__ = ["Autoencoder"]


class Autoencoder(Spatial):
    """Encoders, decoders and a likelihood: what :class:`dvae.VAE` and :class:`dvae.models.Quantized` have in common.

    A subclass sets the attributes and says what a code is: :meth:`code_of`, :meth:`sample_of`, :meth:`decode` and
    :meth:`reconstruct`.
    """

    encoders: nn.ModuleList
    decoders: nn.ModuleList
    num_layers: int
    mean_is_set: Tensor

    def make_statistics(self) -> None:
        """Make the buffers for the data's statistics; called once, by the constructor."""
        self.register_buffer("mean", torch.full((self.num_pixels,), 0.5))
        self.register_buffer("output_bias", torch.zeros(self.num_pixels * self.likelihood.outputs_per_pixel))
        self.register_buffer("mean_is_set", torch.tensor(False))

    def code_of(self, x: Tensor) -> Tensor:
        """The most probable code of the first layer as whole numbers, [B, D], of x as :meth:`check_input` gives it."""
        raise NotImplementedError(f"{type(self).__name__} must define code_of(x)")

    def sample_of(self, code: Tensor) -> Tensor:
        """What :meth:`decode` takes, of a code of whole numbers, [B, D]."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_of(code)")

    def decode(self, b: Tensor) -> Tensor:
        """What the likelihood takes, [*, num_pixels] (logits, for Bernoulli), of what :meth:`sample_of` gives."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(b)")

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """E[x | code], [B, num_pixels], of x [B, ...]."""
        raise NotImplementedError(f"{type(self).__name__} must define reconstruct(x)")

    def named_theta(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the model proper."""
        raise NotImplementedError(f"{type(self).__name__} must define named_theta()")

    def codes(self, x: Tensor) -> Tensor:
        """The code of each x as it is stored, [B, L D]."""
        raise NotImplementedError(f"{type(self).__name__} must define codes(x)")

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        return self.mean.device

    def flat_input(self, x: Tensor) -> Tensor:
        """x as [B, num_pixels] of the model's type; an InputError says where its shape is wrong."""
        if isinstance(x, Tensor) and x.dim() == 2 and x.shape[1] == self.num_pixels:
            return x.to(self.mean.dtype)
        if not isinstance(x, Tensor) or x.dim() < 1 or x[0:1].numel() not in (0, self.num_pixels):
            given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            size = tuple(x.shape[1:]) if isinstance(x, Tensor) else ()
            name = f"image_shape={size}" if len(size) == 3 else f"num_pixels={math.prod(size)}"
            hint = f": a model of such data has {name}" if size and not isinstance(given, str) else ""
            if self.grid is not None:
                hint = ": images of another size are given as [B, channels, height, width], flat ones to model.at(image_shape)"
            raise InputError(f"x must be a tensor of {self.num_pixels} values per example, got {given}{hint}")
        return x.reshape(x.shape[0], self.num_pixels).to(self.mean.dtype)

    def check_input(self, x: Tensor) -> Tensor:
        """x as [B, num_pixels] of the model's type; an InputError says what is wrong with its shape or its values."""
        x = self.flat_input(x)
        check_values(self.likelihood, x)
        return x

    def set_mean(self, mean: Tensor, std: Tensor | None = None) -> None:
        """Centre the encoder's input at the data's mean, [num_pixels], and start the decoder's outputs there.

        Arguments:
            mean: of the training set.
            std: its standard deviation, for likelihoods that work in units of it.
        """
        if mean.shape != self.mean.shape:
            raise InputError(f"mean must have shape {tuple(self.mean.shape)}, got {tuple(mean.shape)}")
        mean, std = self.per_channel(mean, std)
        self.mean.copy_(mean)
        self.likelihood.set_statistics(mean, std)
        self.output_bias.copy_(self.likelihood.start(mean))
        self.mean_is_set.fill_(True)
