"""Arrays from anywhere, read, checked and made tensors."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from math import ceil, isqrt
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError, reason_of
from dvae.noise import uniform_from

__all__ = ["SPLITS", "Splits", "binarize"]


Source = np.ndarray | Tensor | str | Path

SPLITS = ("train", "valid", "test")

# A compressed file can unpack to any size; data that is larger than this belongs into a data module of its own.
_MAX_BYTES = 2**32

# What float32, in which batches come, tells apart from its neighbours.
_LARGEST_INTEGER = 2**24

# Every use of randomness has a stream of its own, so that e.g. a new order leaves the noise alone.
ORDER, NOISE, HOLD_OUT, BINARIZE, AUGMENT, LOOK, EVALUATE = range(1, 8)


class Splits(NamedTuple):
    """What a data set consists of.

    train, valid, test: arrays or tensors of numbers [N, ...], or a :class:`dvae.data.Store`; None where there is no such split.
    labels: for splits that have them, whole numbers [N].
    """

    train: Any
    valid: Any = None
    test: Any = None
    labels: Mapping[str, Any] | None = None


def binarize(probs: Tensor, seed: int) -> Tensor:
    """Draw every value once from Bernoulli(probs): uint8 of the same shape, the same for the same seed."""
    if not probs.is_floating_point():
        return probs.to(torch.uint8)
    noise = uniform_from(torch.Generator().manual_seed(seed), probs.shape, probs.device)
    return bits_of(probs, noise).to(torch.uint8)


def check_probabilities(values: Tensor, name: str) -> None:
    """An InputError where values do not lie in [0, 1]."""
    low, high = values.aminmax()
    if low < 0 or high > 1:
        hint = "; divide_by=255 makes such of bytes" if low >= 0 else ""
        raise InputError(
            f"{name} must have values in [0, 1] to be drawn from, got values from {low.item():g} to {high.item():g}{hint}"
        )


def bits_of(probs: Tensor, noise: Tensor) -> Tensor:
    """Bits that are 1 with these probabilities, float32, from uniforms of their shape."""
    # Uniforms lie in [0, 1): a probability of 0 never, of 1 always gives 1.
    return (noise < probs).float()


def check_count(name: str, value: int) -> None:
    """An InputError where the value is no integer of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be an integer of at least 1, got {value!r}")


def check_seed(name: str, value: int) -> None:
    """An InputError where the value is no integer of at least 0."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise InputError(f"{name} must be an integer of at least 0, got {value!r}")


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as a tuple; an InputError where it is not (channels, height, width)."""
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"image_shape must be three positive integers (channels, height, width), got {shape!r}")
    return tuple(shape)


def check_file(path: Path, name: str) -> None:
    """An InputError where there is no file at the path."""
    if not path.is_file():
        raise InputError(f"{name} must be a file, got {path}, which {'is a folder' if path.is_dir() else 'does not exist'}")


def guess_shape(event: Sequence[int]) -> tuple[int, ...] | None:
    """(channels, height, width) from an example's shape; None where that does not tell."""
    if len(event) == 3:
        return tuple(event)
    if len(event) == 2:
        return (1, *event)
    side = isqrt(event[0]) if len(event) == 1 else 0
    return (1, side, side) if side > 0 and side * side == event[0] else None


def number_tensor(array: Any, name: str) -> Tensor:
    """A tensor of finite numbers [N, ...] on the CPU: uint8 or int32 for bool and integers, float32 otherwise."""
    if not isinstance(array, Tensor):
        try:
            array = np.asarray(array)
        except (ValueError, TypeError) as error:
            raise InputError(f"{name} must be an array of numbers, got {reason_of(error)}") from None
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name} must be an array of numbers, got dtype {array.dtype}")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        # Copied: the caller's array may change, be read-only, or have strides or a byte order that torch does not take.
        array = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    array = array.detach().cpu()
    if array.is_complex():
        raise InputError(f"{name} must be an array of real numbers, got dtype {array.dtype}")
    if array.ndim < 2 or array.numel() == 0:
        raise InputError(f"{name} must be [N, ...] with at least one example and one pixel, got {list(array.shape)}")
    low, high = (array.to(torch.int64) if array.dtype == torch.bool else array).aminmax()  # a NaN is in both
    if not (abs(low.item()) < math.inf and abs(high.item()) < math.inf):
        found = "NaN (not a number)" if low != low else "infinity"
        raise InputError(f"{name} must have finite values, got {found} among them")
    if not array.is_floating_point() and max(-low.item(), high.item()) > _LARGEST_INTEGER:
        raise InputError(
            f"{name} must have integers of at most {_LARGEST_INTEGER}, which float32 tells apart, got {low.item()} to {high.item()}"
        )
    if array.is_floating_point():
        return array.to(torch.float32, copy=True)
    return array.to(torch.uint8 if low >= 0 and high <= 255 else torch.int32, copy=True)


def label_tensor(labels: Any, name: str, count: int) -> Tensor:
    """Labels as whole numbers [N] on the CPU.

    Raises:
        InputError: they are no whole numbers, or more or fewer than examples.
    """
    labels = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if labels.dtype.kind not in "biu" or labels.shape != (count,):
        raise InputError(f"labels of {name} must be {count} whole numbers, got {labels.dtype} {list(labels.shape)}")
    return torch.from_numpy(labels.astype(np.int64))


def layout(event: Sequence[int], given: Sequence[int] | None) -> tuple[tuple[int, ...] | None, bool]:
    """(channels, height, width) of an example of that shape, and whether its channels are behind.

    Arguments:
        event: an example's shape.
        given: (channels, height, width) as the user says.
    """
    event = tuple(event)
    if given is not None:
        return tuple(given), len(event) == 3 and event != tuple(given) and event == (*given[1:], given[0])
    if len(event) == 3 and event[-1] in (1, 3, 4) and event[0] not in (1, 3, 4):
        return (event[-1], *event[:-1]), True
    return guess_shape(event), False


def compact(array: Any, name: str) -> Tensor:
    """Checked, and compact: uint8 of what is 0 and 1 or a byte's integer, int32 of other integers, float32 otherwise."""
    tensor = number_tensor(array, name)
    binary = tensor.is_floating_point() and bool(((tensor == 0) | (tensor == 1)).all())
    return tensor.to(torch.uint8) if binary else tensor


def arrays_of(source: Any, name: str) -> dict[str, Any]:
    """The arrays of a source by their names in its file; one that has no name gets ``name``."""
    if isinstance(source, Mapping) and "given_as" in source:
        raise InputError(
            f"{name} was given as an object of type {source['given_as']}, which a config does not hold; pass the data again"
        )
    if not isinstance(source, (str, Path)):
        return {name: source}
    path = Path(source)
    check_file(path, name)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {name: loaded}
        with loaded:
            size = sum(member.file_size for member in loaded.zip.infolist())
            if size > _MAX_BYTES:
                raise InputError(f"{name}: {path} must hold at most {_MAX_BYTES} bytes, it unpacks to {size}")
            return {key: loaded[key] for key in loaded.files}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever the damaged bytes lead to
        if "allow_pickle" in str(error) and path.suffix in (".npy", ".npz"):
            raise InputError(f"{name}: {path} holds pickled objects or is damaged; expected arrays of numbers") from None
        raise InputError(f"{name} must be a .npz or .npy file, but {path} cannot be read as one ({reason_of(error)})") from None


def arrays_in(path: Path) -> list[str]:
    """The names of the arrays in a ``.npz`` file, none of which is read; none where it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def pick(arrays: Mapping[str, Any], name: str) -> Any:
    """The array of that name, or the only one that there is."""
    if name in arrays:
        return arrays[name]
    if len(arrays) == 1 and not set(arrays) & set(SPLITS):
        return next(iter(arrays.values()))
    raise InputError(f"{name}: the .npz file must hold one array, or one named {name!r}, got {sorted(arrays)}")


def unpacked(packed: Any, size: int, name: str) -> np.ndarray:
    """The 0 and 1 in rows of packed bits, uint8 [N, size]; an InputError where they are not packed so."""
    packed = packed.detach().cpu().numpy() if isinstance(packed, Tensor) else np.asarray(packed)
    width = ceil(size / 8)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != width:
        raise InputError(f"{name} must be bit-packed, uint8 [N, {width}], got {packed.dtype} {list(packed.shape)}")
    bits = np.unpackbits(packed, axis=1)
    if bits[:, size:].any():
        raise InputError(f"{name} must be packed from {size} pixels, but bits beyond those are set")
    return bits[:, :size]
