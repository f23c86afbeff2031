"""Quantisers: whole numbers out of an encoder's vectors, without a distribution, by ``vector-quantize-pytorch``."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks.convolutional import check_sizes

__all__ = ["BSQ", "FSQ", "LFQ", "VQ", "Quantizer", "QuantizerOutput"]


class QuantizerOutput(NamedTuple):
    """What a quantiser makes of vectors [B, N, dim].

    values: [B, N, dim], what the decoder sees, with a gradient to the vectors.
    code: whole numbers [B, N].
    loss: scalar, what the quantiser itself wants to be small.
    """

    values: Tensor
    code: Tensor
    loss: Tensor


class Quantizer(Module):
    """The base of quantisers: vectors of ``dim`` numbers to one of ``num_values`` values.

    A quantiser is part of the model: its gradient is straight through, and there is no estimator to choose.
    """

    dim: int
    num_values: int

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Of vectors [B, N, dim]."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(z)")

    def values_of(self, code: Tensor) -> Tensor:
        """The values [B, N, dim] of a code [B, N]."""
        raise NotImplementedError(f"{type(self).__name__} must define values_of(code)")


class FSQ(Quantizer):
    """Finite scalar quantisation: each number is bounded and rounded to one of a few levels.

    Arguments:
        levels: how many for each number of a vector; [4, 4] are 16 values, 4 bits.

    Raises:
        InputError: a level is less than 2, or ``vector-quantize-pytorch`` is not installed.

    References:
        Mentzer, Minnen, Agustsson & Tschannen, *Finite Scalar Quantization: VQ-VAE Made Simple*, 2024.
        https://arxiv.org/abs/2309.15505
    """

    def __init__(self, levels: Sequence[int] = (4, 4)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise InputError(f"levels must be numbers of at least 2, one for each number of a vector, got {list(levels)}")
        self.dim, self.num_values = len(levels), math.prod(levels)
        # The library's own rounding has no two levels.
        self.layer = _library().FSQ(list(levels), preserve_symmetry=2 in levels)

    def forward(self, z: Tensor) -> QuantizerOutput:
        values, code = self.layer(z)
        return QuantizerOutput(values, code.long(), z.new_zeros(()))

    def values_of(self, code: Tensor) -> Tensor:
        return self.layer.indices_to_codes(code)


class LFQ(Quantizer):
    """Lookup-free quantisation: the sign of each number is a bit.

    Arguments:
        bits: numbers of a vector.
        entropy_weight: of the loss that has each vector sure of its code, and all codes used.
        commitment_weight: of the squared distance between vectors and their values.

    Raises:
        InputError: ``bits`` is less than 1 or more than 16, a weight is negative, or ``vector-quantize-pytorch`` is not installed.

    References:
        Yu et al., *Language Model Beats Diffusion: Tokenizer is Key to Visual Generation*, 2024. https://arxiv.org/abs/2310.05737
    """

    spherical = False

    def __init__(self, bits: int = 4, entropy_weight: float = 0.1, commitment_weight: float = 0.25) -> None:
        super().__init__()
        check_sizes(bits=bits)
        if bits > _MOST_BITS:
            raise InputError(f"bits must be at most {_MOST_BITS}, for the loss looks at every value, got {bits}")
        _require_weights(entropy_weight=entropy_weight, commitment_weight=commitment_weight)
        self.dim, self.num_values = bits, 2**bits
        self.layer = _library().LFQ(
            dim=bits,
            codebook_size=2**bits,
            entropy_loss_weight=entropy_weight,
            commitment_loss_weight=commitment_weight,
            spherical=self.spherical,
        )

    def forward(self, z: Tensor) -> QuantizerOutput:
        values, code, loss = self.layer(z)
        return QuantizerOutput(values, code.long(), loss)

    def values_of(self, code: Tensor) -> Tensor:
        return self.layer.indices_to_codes(code)


class BSQ(LFQ):
    """Binary spherical quantisation: :class:`LFQ` of vectors of length 1.

    Arguments:
        bits, entropy_weight, commitment_weight: as of :class:`LFQ`.

    Raises:
        InputError: as :class:`LFQ`.

    References:
        Zhao, Xiong & Krähenbühl, *Image and Video Tokenization with Binary Spherical Quantization*, 2024.
        https://arxiv.org/abs/2406.07548
    """

    spherical = True


class VQ(Quantizer):
    """Vector quantisation: the nearest vector of a learned codebook, which follows the means of what it stands for.

    Arguments:
        num_values: vectors of the codebook.
        dim: numbers of a vector.
        commitment_weight: of the squared distance between vectors and their values.
        decay: of the codebook's moving means.
        least_use: mean number of vectors of a batch below which a value is given up, and replaced by one of them; its draw is from
            PyTorch's own random numbers.

    Raises:
        InputError: a size is less than 1, a weight is negative, ``decay`` is outside [0, 1), or ``vector-quantize-pytorch`` is not
            installed.

    References:
        van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning*, 2017. https://arxiv.org/abs/1711.00937
    """

    def __init__(
        self, num_values: int = 16, dim: int = 4, commitment_weight: float = 0.25, decay: float = 0.99, least_use: float = 0.5
    ) -> None:
        super().__init__()
        check_sizes(num_values=num_values, dim=dim)
        _require_weights(commitment_weight=commitment_weight, least_use=least_use)
        if not 0 <= decay < 1:
            raise InputError(f"decay must be in [0, 1), got {decay}")
        self.dim, self.num_values = dim, num_values
        self.layer = _library().VectorQuantize(
            dim=dim,
            codebook_size=num_values,
            commitment_weight=commitment_weight,
            decay=decay,
            threshold_ema_dead_code=least_use,
            kmeans_init=True,
        )

    def forward(self, z: Tensor) -> QuantizerOutput:
        values, code, loss = self.layer(z)
        return QuantizerOutput(values, code.long(), loss.sum())

    def values_of(self, code: Tensor) -> Tensor:
        return self.layer.get_output_from_indices(code)


_MOST_BITS = 16


def _require_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise InputError(f"{name} must be a finite number of at least 0, got {weight}")


def _library() -> Any:
    try:
        return importlib.import_module("vector_quantize_pytorch")
    except ImportError:
        raise InputError(
            "quantisers need vector-quantize-pytorch, which is not installed: pip install 'discrete-vae[quantizers]'"
        ) from None
