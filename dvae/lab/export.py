"""A trained model for other programs: encoder and decoder as ONNX files or as PyTorch's exported programs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.models import VAE

__all__ = ["Decoder", "Encoder", "export"]

Format = Literal["onnx", "torch-export"]


class Encoder(nn.Module):
    """From x [B, *shape] to the most probable codes [B, L D], as :meth:`dvae.VAE.codes` gives them; nothing is checked.

    Arguments:
        model: whose encoders they are.
    """

    def __init__(self, model: VAE) -> None:
        super().__init__()
        # What it needs alone: a file holds all parameters of its module.
        self.encoders, self.likelihood, self.latent = model.encoders, model.likelihood, model.latent
        self.mean = nn.Buffer(model.mean)

    def forward(self, x: Tensor) -> Tensor:
        """The codes of x."""
        features, codes = self.likelihood.features(x.flatten(1), self.mean), []
        for encoder in self.encoders:
            mode = self.latent(encoder(features)).mode()
            features = self.latent.features(mode)
            codes.append(self.latent.code(mode))
        return torch.cat(codes, -1)


class Decoder(nn.Module):
    """From codes [B, L D] to E[x | b], [B, *shape], as :meth:`dvae.VAE.decode_codes` gives it; nothing is checked.

    Arguments:
        model: whose decoder it is.
    """

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.decoder, self.likelihood, self.latent = model.decoders[0], model.likelihood, model.latent
        self.output_bias = nn.Buffer(model.output_bias)
        self.shape = tuple(model.image_shape or (model.num_pixels,))

    def forward(self, codes: Tensor) -> Tensor:
        """The mean of x given each code."""
        code, number = codes[:, : self.latent.num_variables], self.latent.num_classes
        b = code if number is None else code[..., None] == torch.arange(number, device=code.device)
        features = self.latent.features(b.to(self.output_bias.dtype))
        return self.likelihood.mean(self.decoder(features) + self.output_bias).unflatten(1, self.shape)


@torch.no_grad()
def export(model: VAE, folder: str | Path, format: Format = "onnx") -> tuple[Path, Path]:
    """Write a model's encoder and decoder, for batches of any size; of a model on a grid at the model's own image size.

    ``encoder.onnx`` takes ``x`` [B, C, H, W] (or [B, num_pixels]) and gives ``codes`` [B, L D]; ``decoder.onnx`` takes ``codes``
    and gives ``x``, the mean. With "torch-export" they are ``encoder.pt2`` and ``decoder.pt2``, for ``torch.export.load``.

    Arguments:
        model: a trained model.
        folder: made where it is not there.
        format: "onnx" or "torch-export".

    Raises:
        InputError: what the format needs is not installed (``pip install 'discrete-vae[onnx]'``), the model's operations have none
            in the format, or the folder cannot be written.
    """
    if format not in _WRITERS:
        raise InputError(f"format must be {' or '.join(map(repr, _WRITERS))}, got {format!r}")
    suffix, write = _WRITERS[format]
    model = model.cpu().eval()
    # Two examples: of one, a batch's size would be taken for a constant.
    x = torch.full((2, *(model.image_shape or (model.num_pixels,))), 0.5, dtype=model.mean.dtype)
    encoder, decoder = Encoder(model).eval(), Decoder(model).eval()
    codes = encoder(x)
    paths = Path(folder) / f"encoder{suffix}", Path(folder) / f"decoder{suffix}"
    for path, module, example, names in zip(paths, (encoder, decoder), (x, codes), (("x", "codes"), ("codes", "x")), strict=True):
        try:
            content = write(module, example, names)
        except InputError:
            raise
        except Exception as error:  # the exporters' are of many kinds
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path.stem} cannot be written as {format}: {type(error).__name__}: {reason}") from error
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    return paths


def _onnx(module: nn.Module, example: Tensor, names: tuple[str, str]) -> bytes:
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError:
            raise InputError(f"ONNX files need {package}, which is not installed: pip install 'discrete-vae[onnx]'") from None
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            input_names=names[:1],
            output_names=names[1:],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def _exported(module: nn.Module, example: Tensor, names: tuple[str, str]) -> bytes:
    content = io.BytesIO()
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    program.example_inputs = None  # which would be pickled
    with _quiet():
        torch.export.save(program, content)
    return content.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


_WRITERS: dict[str, tuple[str, Callable[[nn.Module, Tensor, tuple[str, str]], Any]]] = {
    "onnx": (".onnx", _onnx),
    "torch-export": (".pt2", _exported),
}
