"""Codes in other forms, without loss: packed bits, integers of several variables, one-hot vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from dvae.errors import InputError

__all__ = ["from_integers", "from_one_hot", "one_hot", "pack_bits", "to_integers", "unpack_bits"]

# An integer is an int64.
_MOST_BITS = 63


def pack_bits(codes: Tensor) -> Tensor:
    """Bits [*, D] as bytes, uint8 [*, ceil(D / 8)]: the first bit weighs most and the last byte ends in zeros, as NumPy's do.

    Raises:
        InputError: a value is neither 0 nor 1.

    Example:
        >>> dvae.latents.pack_bits(torch.tensor([[1, 0, 0, 0, 0, 0, 0, 1, 1]]))
        tensor([[129, 128]], dtype=torch.uint8)
    """
    codes = require_values(codes, 2, "codes")
    missing = -codes.shape[-1] % 8
    padded = torch.nn.functional.pad(codes.long(), (0, missing)).unflatten(-1, (-1, 8))
    return (padded << torch.arange(7, -1, -1, device=codes.device)).sum(-1).to(torch.uint8)


def unpack_bits(packed: Tensor, num_bits: int) -> Tensor:
    """The bits that :func:`pack_bits` packed, uint8 [*, num_bits].

    Arguments:
        packed: uint8 [*, ceil(num_bits / 8)].
        num_bits: D.

    Raises:
        InputError: there are not as many bytes as so many bits take, or they are no bytes.

    Example:
        >>> dvae.latents.unpack_bits(torch.tensor([[129, 128]], dtype=torch.uint8), 9)
        tensor([[1, 0, 0, 0, 0, 0, 0, 1, 1]], dtype=torch.uint8)
    """
    if packed.dtype != torch.uint8 or num_bits < 1 or packed.dim() < 1 or packed.shape[-1] != (num_bits + 7) // 8:
        raise InputError(f"packed must be uint8 [*, {(num_bits + 7) // 8}] of {num_bits} bits, got {_about(packed)}")
    bits = (packed[..., None] >> torch.arange(7, -1, -1, device=packed.device)) & 1
    return bits.flatten(-2)[..., :num_bits].to(torch.uint8)


def to_integers(codes: Tensor, num_values: int, group: int) -> Tensor:
    r"""Each group of variables as one integer, int64 [*, D / group], the first variable weighing most.

    .. math:: \sum_{d=1}^{g} c_d \, C^{g - d} \; < \; 2^{63}

    Arguments:
        codes: [*, D] of integers from 0 to C - 1.
        num_values: C, 2 of bits.
        group: g, variables of an integer; it divides D.

    Raises:
        InputError: the numbers do not fit, or a group has more than 63 bits.

    Example:
        >>> dvae.latents.to_integers(torch.tensor([[1, 0, 1, 1]]), 2, 2)
        tensor([[2, 3]])
    """
    weights = _weights(num_values, group, codes.device)
    codes = require_values(codes, num_values, "codes")
    if codes.shape[-1] % group:
        raise InputError(f"group must divide the {codes.shape[-1]} variables of a code, got {group}")
    return (codes.long().unflatten(-1, (-1, group)) * weights).sum(-1)


def from_integers(integers: Tensor, num_values: int, group: int) -> Tensor:
    """The codes that :func:`to_integers` made integers of, int64 [*, D].

    Arguments:
        integers: [*, D / group].
        num_values: C, 2 of bits.
        group: variables of an integer.

    Raises:
        InputError: an integer is out of range, or a group has more than 63 bits.

    Example:
        >>> dvae.latents.from_integers(torch.tensor([[2, 3]]), 2, 2)
        tensor([[1, 0, 1, 1]])
    """
    weights = _weights(num_values, group, integers.device)
    integers = require_values(integers, num_values**group, "integers").long()
    return (integers[..., None] // weights % num_values).flatten(-2)


def one_hot(codes: Tensor, num_values: int) -> Tensor:
    """Codes [*, D] as the samples that a model takes, float [*, D, C].

    Arguments:
        codes: integers from 0 to C - 1.
        num_values: C.

    Raises:
        InputError: a value is out of range.

    Example:
        >>> dvae.latents.one_hot(torch.tensor([[2, 0]]), 3)
        tensor([[[0., 0., 1.],
                 [1., 0., 0.]]])
    """
    codes = require_values(codes, num_values, "codes")
    return (codes[..., None] == torch.arange(num_values, device=codes.device)).float()


def from_one_hot(samples: Tensor) -> Tensor:
    """The codes that :func:`one_hot` made one-hot vectors of, int64 [*, D].

    Raises:
        InputError: a vector is not of one 1 and zeros.

    Example:
        >>> dvae.latents.from_one_hot(torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]))
        tensor([[2, 0]])
    """
    ones = samples == 1
    if samples.dim() < 1 or not bool(((samples == 0) | ones).all()) or not bool((ones.sum(-1) == 1).all()):
        raise InputError(f"samples must be one-hot [*, D, C], a 1 and zeros each, got {_about(samples)}")
    return ones.long().argmax(-1)


def require_values(codes: Tensor, num_values: int, name: str) -> Tensor:
    """The codes, whole numbers from 0 to ``num_values`` - 1; an InputError calls what they are else ``name``."""
    if codes.dim() < 1 or codes.is_complex():
        raise InputError(f"{name} must be whole numbers [*, D], got {_about(codes)}")
    if codes.numel() and not bool(((codes >= 0) & (codes <= num_values - 1) & (codes == codes.to(torch.int64))).all()):
        low, high = codes.aminmax()
        raise InputError(f"{name} must be whole numbers from 0 to {num_values - 1}, got values from {low.item()} to {high.item()}")
    return codes


def _weights(num_values: int, group: int, device: torch.device) -> Tensor:
    if num_values < 2 or group < 1 or num_values**group > 2**_MOST_BITS:
        raise InputError(
            f"an integer holds at least one variable of at least 2 values, at most {_MOST_BITS} bits, got {group} of {num_values}"
        )
    return torch.tensor([num_values**exponent for exponent in range(group - 1, -1, -1)], device=device)


def _about(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
