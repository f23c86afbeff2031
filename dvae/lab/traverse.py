"""What single latents do: images along the way from one code to another, and of one latent's values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.latents import Discrete
from dvae.models import VAE
from dvae.report.pictures import image_grid

__all__ = ["changes", "decode_first", "effects", "interpolate", "picture_of_effects", "picture_of_walks", "variations"]

# Images in a row of a picture.
_COLUMNS = 8

# Codes that are decoded at a time.
_AT_A_TIME = 1000


def interpolate(model: VAE, first: Tensor, last: Tensor, num_steps: int = 8, seed: int = 0) -> Tensor:
    """Codes on the way from one to another, [B, num_steps, D], both ends included.

    Latents that differ take the last code's values one after the other, in a random order; continuous ones move in a straight line.

    Arguments:
        model: whose codes they are.
        first, last: [B, D], of the first layer; see :meth:`dvae.VAE.codes`.
        num_steps: codes on each way, at least 2.
        seed: of the order.

    Raises:
        InputError: the codes are of different shapes or of orders, which have no values between, or there are too few steps.
    """
    if first.shape != last.shape or first.dim() != 2:
        raise InputError(f"first and last must be of one shape [B, D], got {tuple(first.shape)} and {tuple(last.shape)}")
    if num_steps < 2:
        raise InputError(f"num_steps must be at least 2, got {num_steps}")
    _require_free(model)
    fractions = torch.linspace(0, 1, num_steps)
    if model.latent.num_values is None:
        return first[:, None] + fractions[:, None].to(first) * (last - first)[:, None]
    # The rank of each latent among those that differ, in a random order of its own for each pair.
    differ = first != last
    order = torch.rand(first.shape, generator=torch.Generator().manual_seed(seed)).to(first.device)
    rank = order.masked_fill(~differ, 2.0).argsort(-1).argsort(-1)
    taken = (fractions.to(first.device) * differ.sum(-1, keepdim=True)).round()
    return torch.where(rank[:, None] < taken[..., None], last[:, None], first[:, None])


def variations(model: VAE, codes: Tensor, latent: int) -> Tensor:
    """Each code with one latent at each of its values, [B, C, D].

    Arguments:
        model: whose codes they are.
        codes: [B, D] of bits or classes, of the first layer.
        latent: which, from 0.

    Raises:
        InputError: there is no such latent, or its values cannot be counted.
    """
    number = _num_values(model)
    if not 0 <= latent < codes.shape[-1]:
        raise InputError(f"latent must be from 0 to {codes.shape[-1] - 1}, got {latent}")
    varied = codes[:, None].repeat(1, number, 1)
    varied[..., latent] = torch.arange(number, device=codes.device).to(codes.dtype)
    return varied


@torch.no_grad()
def changes(model: VAE, codes: Tensor, latent: int) -> Tensor:
    r"""How much a latent changes each pixel, [num_pixels]: root mean square over the codes and all pairs of its values.

    .. math:: m_{dp}^2 = E_{b, \, u \ne v} (\mu_p(b, b_d = u) - \mu_p(b, b_d = v))^2, \qquad \mu(b) = E[x | b]

    Arguments:
        model: a trained model.
        codes: [B, D] of bits or classes, of the first layer; see :meth:`dvae.VAE.codes`.
        latent: d, from 0.

    Raises:
        InputError: there is no such latent, or its values cannot be counted.
    """
    number, squares = _num_values(model), []
    for own in codes.split(max(1, _AT_A_TIME // number)):
        varied = variations(model, own, latent)
        images = decode_first(model, varied.flatten(0, 1)).double().unflatten(0, (-1, number))
        # Twice the variance is the mean square of the difference of two values, equal ones included.
        squares.append(2 * images.var(1, correction=0) * number / (number - 1))
    return torch.cat(squares).mean(0).sqrt().float()


def effects(model: VAE, codes: Tensor) -> Tensor:
    """How much each latent changes the image, [D]: the root mean square over pixels of :func:`changes`, in the unit of x.

    It takes D C decodings of each code.

    Arguments:
        model: a trained model.
        codes: [B, D] of bits or classes, of the first layer; see :meth:`dvae.VAE.codes`.

    Raises:
        InputError: the values of a latent cannot be counted.

    Example:
        >>> model = dvae.VAE(num_pixels=6, num_latents=4)
        >>> dvae.lab.traverse.effects(model, torch.zeros(2, 4)).shape
        torch.Size([4])
    """
    return torch.stack([changes(model, codes, latent).square().mean().sqrt() for latent in range(codes.shape[-1])])


def decode_first(model: VAE, codes: Tensor) -> Tensor:
    """E[x | b], [B, num_pixels], of the first layer's codes [B, D]."""
    missing = (model.num_layers - 1) * codes.shape[-1]
    return model.decode_codes(torch.nn.functional.pad(codes, (0, missing)))


@torch.no_grad()
def picture_of_walks(model: VAE, codes: Tensor, image_shape: Sequence[int] | None = None, seed: int = 0) -> Tensor:
    """The walk from each code of the first half to its partner in the second, a row each, as one picture [C, H, W] in [0, 1].

    Arguments:
        model: a trained model.
        codes: [2 P, D] of the first layer.
        image_shape: (C, H, W) of x.
        seed: see :func:`interpolate`.

    Raises:
        InputError: as :func:`interpolate`.
    """
    first, last = codes.chunk(2)
    images = decode_first(model, interpolate(model, first, last, _COLUMNS, seed).flatten(0, 1))
    return image_grid(model, images, image_shape, _COLUMNS)


@torch.no_grad()
def picture_of_effects(model: VAE, codes: Tensor, latents: Sequence[int], image_shape: Sequence[int] | None = None) -> Tensor:
    """A row for each latent: some codes, each with the latent at its values, and where it changes images; [C, H, W] in [0, 1].

    Arguments:
        model: a trained model.
        codes: [B, D] of bits or classes, of the first layer; the last column is over all of them.
        latents: which, from 0.
        image_shape: (C, H, W) of x.

    Raises:
        InputError: there is no such latent, or its values cannot be counted.
    """
    shown = min(_num_values(model), _COLUMNS)
    several = codes[: max(1, _COLUMNS // shown)]
    rows = torch.stack([variations(model, several, latent)[:, :shown].flatten(0, 1) for latent in latents])
    images = decode_first(model, rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
    found = torch.stack([changes(model, codes, latent) for latent in latents])
    low, high = images.aminmax()
    # From the darkest that there is to the brightest, one scale for all latents.
    maps = low + (high - low) * found / found.max().clamp(min=1e-12)
    return image_grid(model, torch.cat([images, maps[:, None]], 1).flatten(0, 1), image_shape, rows.shape[1] + 1)


def _require_free(model: VAE) -> None:
    family = model.latent.family
    if model.latent.num_values is None and issubclass(family, Discrete):
        raise InputError(f"codes to walk between must be of bits, classes or real numbers, got {family.__name__} latents")


def _num_values(model: VAE) -> int:
    number = model.latent.num_values
    if number is None:
        raise InputError(f"latents to set must be bits or classes, got {model.latent.family.__name__}")
    return number
