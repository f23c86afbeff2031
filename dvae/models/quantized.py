"""The mathematics of an autoencoder whose code is quantised, without a trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvae.config import instantiate
from dvae.errors import InputError
from dvae.latents import Spec
from dvae.likelihoods import Bernoulli, Likelihood
from dvae.models.autoencoder import Autoencoder
from dvae.models.building import linear_or_given, network_sizes, require_at_least, size_of_example
from dvae.models.quantizers import Quantizer, QuantizerOutput
from dvae.models.spatial import on_grid

__all__ = ["Quantized", "QuantizedTerms"]


class QuantizedTerms(NamedTuple):
    """The parts of the loss: log p(x | code) [B] in nats, and the quantiser's own loss, a scalar."""

    reconstruction: Tensor
    loss: Tensor


class Quantized(Autoencoder):
    r"""Encoder, quantiser, decoder and likelihood: a code without a distribution, beside :class:`dvae.VAE`.

    .. math:: -\log p(x \mid c(x)) + n \, \ell

    is trained, c(x) the code, n the number of values of x and :math:`\ell` the quantiser's own loss, which so weighs as much as one
    value of x. Networks, likelihood, data, sizes and tokens are as there; there is no estimator, prior or bound: what such a
    code is worth is its rate and distortion. :class:`dvae.QuantizedAutoencoder` is this with its training.

    Arguments:
        quantizer: :class:`dvae.models.FSQ`, :class:`dvae.models.LFQ`, :class:`dvae.models.BSQ`, :class:`dvae.models.VQ`, or another
            :class:`dvae.models.Quantizer`, or its config; FSQ of 16 values by default.
        encoder: features to the vectors that are quantised, flat, ``num_latents * quantizer.dim`` numbers; affine by default.
        decoder: their values to outputs for x; likewise.
        likelihood: of the pixels, :class:`dvae.likelihoods.Likelihood`; Bernoulli by default.
        num_pixels: values of an example; 784 by default.
        image_shape: (channels, height, width) of x where it is an image; by default one square channel, where it can be.
        num_latents: vectors of an example, each with one of ``quantizer.num_values`` values; of a grid as many as it has places, or
            a multiple.

    Raises:
        InputError: an argument is outside its range or does not fit the others.
    """

    num_layers = 1

    def __init__(
        self,
        quantizer: Quantizer | dict[str, Any] | None = None,
        encoder: nn.Module | dict[str, Any] | None = None,
        decoder: nn.Module | dict[str, Any] | None = None,
        likelihood: Likelihood | dict[str, Any] | None = None,
        *,
        num_pixels: int | None = None,
        image_shape: Sequence[int] | None = None,
        num_latents: int = 64,
    ) -> None:
        super().__init__()
        self.num_pixels, self.image_shape = size_of_example(num_pixels, image_shape)
        require_at_least(1, num_latents=num_latents)
        self.num_latents = num_latents
        given = {"class_path": "dvae.models.FSQ"} if quantizer is None else quantizer
        self.quantizer = instantiate(given, Quantizer, "quantizer")
        self.likelihood = Bernoulli() if likelihood is None else instantiate(likelihood, Likelihood, "likelihood")
        self.likelihood.build(self.num_pixels)
        vectors = vectors_of(num_latents, self.quantizer)
        sizes = network_sizes(self.num_pixels, self.image_shape, vectors, self.likelihood, 1)
        self.encoders = linear_or_given(encoder, "encoder", sizes.encoders)
        self.decoders = linear_or_given(decoder, "decoder", sizes.decoders)
        self.latent = on_grid(Spec.of("Categorical", num_latents, max(2, self.quantizer.num_values)), self.encoders, self.decoders)
        self.make_statistics()

    def quantize(self, x: Tensor) -> QuantizerOutput:
        """The code of x [B, num_pixels] and its values, [B, N, dim]."""
        vectors = self.encoders[0](self.likelihood.features(x, self.mean))
        return self.quantizer(vectors.unflatten(-1, (-1, self.quantizer.dim)))

    def decode(self, b: Tensor) -> Tensor:
        """What the likelihood takes, [B, num_pixels] (logits, for Bernoulli), of values of a code, [B, N, dim]."""
        return self.decoders[0](b.flatten(-2)) + self.output_bias

    def terms(self, x: Tensor) -> QuantizedTerms:
        """The parts of the loss at x [B, num_pixels]."""
        quantised = self.quantize(x)
        return QuantizedTerms(self.likelihood.log_prob(x, self.decode(quantised.values)), quantised.loss)

    def code_of(self, x: Tensor) -> Tensor:
        return self.quantize(x).code

    def sample_of(self, code: Tensor) -> Tensor:
        return self.quantizer.values_of(code.long()).to(self.mean)

    def codes(self, x: Tensor) -> Tensor:
        """The code of each x, whole numbers [B, N]."""
        model = self.suited_to(x)
        code = model.code_of(model.flat_input(x))
        return code.to(torch.uint8 if self.quantizer.num_values <= 2**8 else torch.int32)

    forward = codes

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """E[x | c(x)], [B, num_pixels]; nothing is random."""
        model = self.suited_to(x)
        return model.likelihood.mean(model.decode(model.quantize(model.check_input(x)).values))

    def named_theta(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of all parts."""
        yield from self.named_parameters(remove_duplicate=False)

    def theta(self) -> list[nn.Parameter]:
        """All parameters."""
        return list(dict.fromkeys(parameter for _, parameter in self.named_theta()))

    def __getattr__(self, name: str) -> Any:
        if name in _OF_A_VAE:
            raise _NotOfQuantized(
                f"a quantised autoencoder has no {name}: its code has no distribution, so that there is no bound, prior or "
                "gradient estimator; its rate and distortion are measured (dvae evaluate)"
            )
        return super().__getattr__(name)


class _NotOfQuantized(InputError, AttributeError):
    """What is asked for does not exist, which ``hasattr`` may find too."""


_OF_A_VAE = frozenset(
    ("elbo", "encode", "estimator", "estimators", "importance_weighted_bound", "log_weights", "prior", "sample", "sample_layers")
)


def vectors_of(num_latents: int, quantizer: Quantizer) -> Spec:
    """Latents of as many numbers as a quantiser's vectors have, for the sizes of networks."""
    return Spec.of("Bernoulli", num_latents * quantizer.dim)
