"""What a model whose code is on a grid can do: images of every size, and codes as integers, tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from dvae.config import Module
from dvae.errors import InputError
from dvae.estimators import LAX, RELAX, GradientEstimator
from dvae.functional import sharing
from dvae.latents import Spec, from_integers, to_integers
from dvae.likelihoods import Likelihood

__all__ = ["Spatial", "on_grid"]

# An identifier is an int64.
_MOST_BITS = 63


def on_grid(latent: Spec, encoders: Iterable[nn.Module], decoders: Iterable[nn.Module]) -> Spec:
    """The latents with the grid that encoder and decoder have, if both have one; else as they are.

    Raises:
        InputError: their grids differ, or the latents cannot be shared out evenly among its places.
    """
    grids: list[Any] = [getattr(network, "grid", None) for network in (*encoders, *decoders)]
    if len(grids) > 2 or None in grids:
        return latent
    if grids[0] != grids[1]:
        raise InputError(
            f"encoder and decoder must be of one grid, got {grids[0]} and {grids[1]} places: give both the same stride "
            "(--model.encoder.stride, --model.decoder.stride)"
        )
    return replace(latent, grid=tuple(grids[0]))


class Spatial(Module):
    """The part of a model that knows of grids.

    A model of one layer is spatial where encoder, decoder and prior each have a ``grid``, an attribute (H', W'), and compute for
    any that it is set to: :class:`dvae.networks.ResidualEncoder`, :class:`dvae.networks.ResidualDecoder` and
    :class:`dvae.priors.SpatialFactorial` or :class:`dvae.priors.SpatialAutoregressive`. Then the data's mean is one number for each
    channel.
    """

    latent: Spec
    image_shape: tuple[int, ...] | None
    num_pixels: int
    num_latents: int
    likelihood: Likelihood
    mean: Tensor
    output_bias: Tensor
    code_of: Any
    sample_of: Any
    decode: Any
    check_input: Any

    @property
    def grid(self) -> tuple[int, int] | None:
        """(H', W'), places of the code; None where it is not on a grid."""
        return self.latent.grid

    @property
    def is_for_every_size(self) -> bool:
        """Whether :meth:`at` has other sizes to give."""
        return self.grid is not None and self.image_shape is not None

    def at(self, image_shape: Sequence[int]) -> Self:
        """The same model for images of another size: a copy that shares all parameters.

        Methods that are given images [B, C, H, W] take it by themselves.

        Arguments:
            image_shape: (C, H, W), H and W multiples of the model's stride.

        Raises:
            InputError: the model is for one size alone, or the images are of other channels or of no such size.

        Example:
            >>> encoder, decoder = ({"class_path": f"dvae.networks.Residual{name}"} for name in ("Encoder", "Decoder"))
            >>> model = dvae.VAE(None, encoder, decoder, image_shape=(1, 8, 8), num_latents=8)
            >>> model.at((1, 12, 16)).sample(3).shape
            torch.Size([3, 192])
        """
        old, new = self.image_shape, tuple(image_shape)
        if new == old:
            return self
        grid = self._grid_of(new)
        twin = sharing(self)
        for module in twin.modules():
            if module is not twin and getattr(module, "grid", None) is not None:
                module.grid = grid  # type: ignore[assignment]
        for owner in (twin, twin.likelihood):
            for name, buffer in list(owner.named_buffers(recurse=False)):
                if buffer.numel() and buffer.numel() % self.num_pixels == 0:
                    setattr(owner, name, _spread(buffer, old or (), new))
        twin.image_shape, twin.num_pixels = new, math.prod(new)
        twin.latent = self.latent.on(grid)
        twin.num_latents = twin.latent.num_variables
        return twin

    def _grid_of(self, image_shape: tuple[int, ...]) -> tuple[int, int]:
        if not self.is_for_every_size or self.image_shape is None:
            raise InputError(
                f"x must be {self.num_pixels} values per example, for the model is for one size alone, got {image_shape}: one for "
                "every size has ResidualEncoder, ResidualDecoder and SpatialFactorial or SpatialAutoregressive"
            )
        if any(parameter.numel() % self.num_pixels == 0 for parameter in self.likelihood.parameters()):
            raise InputError(
                f"image_shape must be {self.image_shape}, got {image_shape}: {type(self.likelihood).__name__} has parameters for "
                "each value of x"
            )
        channels, stride = self.image_shape[0], self._stride
        fits = len(image_shape) == 3 and image_shape[0] == channels and all(n > 0 and n % stride == 0 for n in image_shape[1:])
        if not fits:
            raise InputError(
                f"images must have {channels} channel{'s' * (channels > 1)} and sides that are multiples of {stride}, the model's "
                f"stride, as [B, {channels}, height, width], got {image_shape} each"
            )
        return image_shape[1] // stride, image_shape[2] // stride

    def suited_to(self, x: Any) -> Self:
        """The model :meth:`at` the size of images x [B, C, H, W]; itself where it is for one size alone, or x is flat."""
        if self.grid is None or not isinstance(x, Tensor) or x.dim() != 4:
            return self
        return self.at(x.shape[1:])

    def suited_to_code(self, b: Tensor) -> Self:
        """The model at the size of samples b [*, B, D], or [*, B, D, C]: of images of its own proportions, for b is flat."""
        latent = self.latent
        if latent.grid is None or b.dim() < latent.family.sample_dim:
            return self
        number = b.shape[-latent.family.sample_dim]
        if number == latent.num_variables:
            return self
        height, width = latent.grid
        factor = math.sqrt(number / latent.num_variables)
        grid = (round(height * factor), round(width * factor))
        if number == 0 or latent.on(grid).num_variables != number or grid[0] * width != grid[1] * height:
            raise InputError(
                f"b must have {latent.num_variables} latents, {latent.num_per_place} at each of {height} x {width} places, or "
                f"those of a grid of the same proportions, got {number}: else take model.at(image_shape).decode(b)"
            )
        return self._at_grid(grid)

    def _at_grid(self, grid: tuple[int, int]) -> Self:
        assert self.image_shape is not None
        return self.at((self.image_shape[0], grid[0] * self._stride, grid[1] * self._stride))

    @property
    def _stride(self) -> int:
        """Pixels of a place's side."""
        assert self.image_shape is not None
        assert self.grid is not None
        return self.image_shape[1] // self.grid[0]

    def give_surrogate(self, estimator: GradientEstimator) -> None:
        """Let RELAX or LAX make its network for the model's grid, where it waits for its sizes."""
        if self.grid is None or not isinstance(estimator, (RELAX, LAX)) or estimator.network is not None:
            return
        estimator.network = estimator.surrogate.made_on_grid(
            num_latents=self.latent.num_features, num_context=self.num_pixels, image_shape=self.image_shape, stride=self._stride
        )

    def per_channel(self, mean: Tensor, std: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Statistics of the data [num_pixels] with one value for each channel, where the code is on a grid."""
        if self.grid is None or self.image_shape is None:
            return mean, std
        pooled = _pooled(mean, self.image_shape)
        if std is None:
            return pooled, None
        return pooled, _pooled(std.square() + (mean - pooled).square(), self.image_shape).sqrt()

    # Tokens

    @property
    def num_ids(self) -> int:
        """How many integers there are for :meth:`encode_ids` to give: 2^D of D bits at each place, C^D of D classes.

        Raises:
            InputError: the code is not on a grid, or its values cannot be counted.
        """
        latent = self.latent
        if latent.grid is None or latent.num_values is None:
            kind = f"one grid of {latent.family.__name__} latents" if latent.grid else "no grid: ResidualEncoder makes such codes"
            raise InputError(f"tokens are of bits or classes on a grid, got a model of {kind}")
        return latent.num_values**latent.num_per_place

    def encode_ids(self, x: Tensor) -> Tensor:
        r"""The most probable code of each image as one integer at each place, int64 [B, H', W'].

        .. math:: \text{id} = \sum_{d=1}^{D} c_d \, C^{D - d} \; < \; 2^{63}

        of D latents at a place, of C values (2 of bits), the first latent's weighing most.

        Arguments:
            x: images [B, C, H, W] of any size that the model is for, or flat ones of its own size.

        Raises:
            InputError: as :attr:`num_ids`; a place's latents are of more than 63 bits; or x is not what the model is for.

        Example:
            >>> encoder, decoder = ({"class_path": f"dvae.networks.Residual{name}"} for name in ("Encoder", "Decoder"))
            >>> model = dvae.VAE(None, encoder, decoder, image_shape=(1, 8, 8), num_latents=8)
            >>> ids = model.encode_ids(torch.zeros(5, 1, 16, 16))
            >>> ids.shape, model.num_ids, model.decode_ids(ids).shape
            (torch.Size([5, 4, 4]), 4, torch.Size([5, 1, 16, 16]))
        """
        self._require_integers()  # what has no tokens says so before it encodes
        model = self.suited_to(x)
        return model.ids_of(model.code_of(model.check_input(x)))

    def ids_of(self, code: Tensor) -> Tensor:
        """Codes of whole numbers [B, D] as :meth:`encode_ids` gives them, on this model's own grid."""
        self._require_integers()
        ids = to_integers(code, self.latent.num_values or 0, self.latent.num_per_place)
        return ids.unflatten(-1, self.grid or ())

    def decode_ids(self, ids: Tensor) -> Tensor:
        """E[x | b], images [B, C, H, W], of codes as :meth:`encode_ids` gives them.

        Arguments:
            ids: whole numbers [B, H', W'], from 0 to :attr:`num_ids` - 1, of a grid of any size.

        Raises:
            InputError: as :meth:`encode_ids`; or the ids have another shape or are out of range.
        """
        self._require_integers()
        if ids.dim() != 3 or ids.is_floating_point() or 0 in ids.shape:
            raise InputError(f"ids must be whole numbers [B, height, width], got {ids.dtype} of shape {tuple(ids.shape)}")
        ids = ids.to(self.mean.device).long()
        if ids.min() < 0 or ids.max() >= self.num_ids:
            raise InputError(f"ids must be from 0 to {self.num_ids - 1}, got {ids.min().item()} to {ids.max().item()}")
        model = self._at_grid((ids.shape[1], ids.shape[2]))
        code = from_integers(ids.flatten(1), self.latent.num_values or 0, self.latent.num_per_place)
        images = model.likelihood.mean(model.decode(model.sample_of(code)))
        return images.unflatten(-1, model.image_shape or ())

    def _require_integers(self) -> None:
        """An InputError where a place's latents are no int64."""
        if self.num_ids > 2**_MOST_BITS:
            raise InputError(
                f"tokens are of at most {_MOST_BITS} bits at a place, got {self.latent.num_per_place} latents of "
                f"{self.latent.num_values} values: take codes(x), or fewer latents at each place"
            )


def _pooled(values: Tensor, image_shape: Sequence[int]) -> Tensor:
    """Each channel's mean, at all of its places, flat."""
    maps = values.reshape(-1, *image_shape)
    return maps.mean((-2, -1), keepdim=True).expand_as(maps).reshape(values.shape)


def _spread(values: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Flat values of images, equal within a channel, at another size."""
    maps = values.reshape(-1, old[0], math.prod(old[1:]))
    return maps[..., :1].expand(-1, -1, math.prod(new[1:])).reshape(-1)
