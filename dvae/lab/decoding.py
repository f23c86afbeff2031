"""Images of stored codes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dvae.data.arrays import arrays_of
from dvae.errors import InputError
from dvae.latents import unpack_bits
from dvae.models import VAE

__all__ = ["StoredCodes", "decode", "read_codes"]


class StoredCodes(NamedTuple):
    """What a file of codes holds.

    codes: [N, L D], as :meth:`dvae.VAE.codes` gives them, or tokens [N, H', W'], as :meth:`dvae.VAE.encode_ids` does.
    labels: [N]; None where the file has none.
    """

    codes: Tensor
    labels: Tensor | None


def read_codes(path: str | Path) -> StoredCodes:
    """The codes in a ``.npz`` file that ``dvae encode``, ``dvae predict`` or ``dvae tokenize`` wrote, bits unpacked.

    Raises:
        InputError: the file cannot be read, or holds neither codes nor tokens.
    """
    arrays = arrays_of(str(path), "codes")
    found = [name for name in ("codes", "tokens") if name in arrays]
    if len(found) != 1:
        raise InputError(f"codes: {path} must hold codes, as dvae encode writes them, or tokens, got {sorted(arrays)}")
    array, number = arrays[found[0]], arrays.get("num_bits")
    if array.dtype.kind not in "biuf" or array.ndim != (3 if found == ["tokens"] else 2) or not array.size:
        raise InputError(f"codes: {path} must hold numbers [N, D], or tokens [N, H, W], got {array.dtype} {list(array.shape)}")
    codes = torch.from_numpy(array.astype("int64") if array.dtype.kind in "iu" and array.dtype != "uint8" else array)
    if number is not None and found == ["codes"]:
        if number.shape != () or number.dtype.kind not in "iu":
            raise InputError(f"codes: {path} must have an integer num_bits, got {number.dtype} {list(number.shape)}")
        codes = unpack_bits(codes, int(number))
    labels = arrays.get("labels")
    if labels is not None and (labels.dtype.kind not in "biu" or labels.shape != (len(codes),)):
        raise InputError(f"codes: {path} must have {len(codes)} labels, got {labels.dtype} {list(labels.shape)}")
    return StoredCodes(codes, None if labels is None else torch.from_numpy(labels.astype("int64")))


@torch.no_grad()
def decode(model: VAE, codes: Tensor, batch_size: int = 1000) -> Tensor:
    """E[x | b] of each code, on the CPU: [N, num_pixels], or [N, C, H, W] of a model of images.

    Arguments:
        model: a trained model.
        codes: [N, L D], see :meth:`dvae.VAE.decode_codes`, or tokens [N, H', W'], see :meth:`dvae.VAE.decode_ids`.
        batch_size: how many are decoded at a time.

    Raises:
        InputError: the codes are not of this model.
    """
    function = model.decode_ids if codes.dim() == 3 else model.decode_codes
    images = torch.cat([function(own.to(model.device)).cpu() for own in codes.split(batch_size)])
    shape = model.image_shape
    is_image = images.dim() == 2 and shape is not None and images.shape[1] == model.num_pixels
    return images.unflatten(1, shape) if is_image and shape is not None else images
