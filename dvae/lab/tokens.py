"""A data set's tokens: the codes of images on a grid, one integer at each place, in a file that a killed run goes on with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvae.data import Examples, StoredExamples, Subset, examples_of
from dvae.errors import InputError
from dvae.files import written_whole
from dvae.lab.evaluate import sized_for
from dvae.models import Autoencoder, Quantized

__all__ = ["Tokens", "tokenize"]


class Tokens(NamedTuple):
    """What :func:`tokenize` wrote.

    path: of the file.
    shape: of its array of tokens, (N, H', W').
    num_ids: how many integers a token may be.
    resumed: how many images an earlier run had done.
    """

    path: Path
    shape: tuple[int, ...]
    num_ids: int
    resumed: int


@torch.no_grad()
def tokenize(
    model: Autoencoder,
    data: Any,
    out: str | Path,
    *,
    split: str = "train",
    batch_size: int = 100,
    progress: Callable[[int, int | None], None] | None = None,
) -> Tokens:
    """Write the tokens of a data set, see :meth:`dvae.VAE.encode_ids`, to a ``.npz`` file, in the data's own order.

    The file holds ``tokens`` [N, H', W'] in the smallest unsigned type, ``num_ids``, ``labels`` [N] where the data have them, and
    ``files`` [N] where they are image files. What is done so far is in a file beside it, ``OUT.part``: the same call goes on there.

    Arguments:
        model: a trained model whose code is on a grid.
        data: images of any size that the model is for; see :func:`dvae.data.examples_of`.
        out: the ``.npz`` file to write.
        split: "train", "valid" or "test".
        batch_size: images encoded at a time.
        progress: called with the number of images done and their total, None where only the end tells.

    Raises:
        InputError: the model has no tokens, the images do not fit it, or ``OUT.part`` is of another model or other data.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(f"out must be a .npz file, got {out}")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    examples = examples_of(data, split, input_key=getattr(model, "input_key", None))
    model = sized_for(model, examples)
    dtype = np.min_scalar_type(model.num_ids - 1)
    part = _Part(out.with_name(f"{out.name}.part"), model.grid or (), dtype, batch_size)
    model.encode_ids(examples.first(1).to(model.device))  # what does not fit is said before a file is begun
    about = {"model": _fingerprint(model), "data": _described(data, examples), "split": split, "batch_size": batch_size}
    labels: list[Tensor | None] = []
    with part.opened(about) as file:
        resumed = done = part.done
        for x in _remaining(examples, resumed, batch_size, labels):
            ids = model.encode_ids(x.reshape(len(x), *(model.image_shape or ())).to(model.device))
            part.add(file, ids.cpu().numpy())
            done += len(x)
            if progress is not None:
                progress(done, examples.count)
    tokens = part.read()
    more = {"labels": _labels(examples, labels), "files": _files(examples)}
    with written_whole(out) as temporary:
        found = {name: value for name, value in more.items() if value is not None}
        np.savez_compressed(temporary, tokens=tokens, num_ids=np.array(model.num_ids, dtype=np.uint64), **found)
    part.path.unlink()
    return Tokens(out, tokens.shape, model.num_ids, resumed)


class _Part:
    """The tokens so far: a line that says what they are of, and then the bytes of whole batches.

    Arguments:
        path: of the file.
        grid: of an image's tokens.
        dtype: of a token.
        batch_size: images in a batch; only the last one is smaller.
    """

    def __init__(self, path: Path, grid: tuple[int, ...], dtype: np.dtype[Any], batch_size: int) -> None:
        self.path, self.grid, self.dtype, self.batch_size = path, grid, dtype, batch_size
        self.done = 0
        self._start = 0

    def opened(self, about: dict[str, Any]) -> BinaryIO:
        """The file, to add to; :attr:`done` says how many images are in it."""
        line = json.dumps(about).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("r+b" if self.path.exists() else "w+b")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None
        begun = file.readline()
        if not begun.endswith(b"\n"):  # a new file, or one of a run that was killed before its first line was whole
            file.seek(0)
            file.truncate()
            file.write(line)
        elif begun != line:
            file.close()
            raise InputError(
                f"{self.path} holds tokens of {self._difference(begun, about)} that was given: finish them, or delete the file to "
                "start anew"
            )
        self._start = len(line)
        batch = self._row * self.batch_size
        whole = (file.seek(0, os.SEEK_END) - self._start) // batch
        self.done = whole * self.batch_size
        file.truncate(self._start + whole * batch)
        file.seek(0, os.SEEK_END)
        return file

    def add(self, file: BinaryIO, ids: Any) -> None:
        """Add a batch, which a process that is killed afterwards leaves behind."""
        file.write(ids.astype(self.dtype).tobytes())
        file.flush()

    def read(self) -> Any:
        """All tokens, [N, H', W']."""
        flat = np.fromfile(self.path, dtype=self.dtype, offset=self._start)
        return flat.reshape(-1, *self.grid)

    @property
    def _row(self) -> int:
        return int(np.prod(self.grid)) * self.dtype.itemsize

    @staticmethod
    def _difference(begun: bytes, about: dict[str, Any]) -> str:
        try:
            before = json.loads(begun)
        except ValueError:
            before = {}
        names = [name for name in about if not isinstance(before, dict) or before.get(name) != about[name]]
        return f"another {' and '.join(names)} than the one"


def _remaining(examples: Examples, done: int, batch_size: int, labels: list[Tensor | None]) -> Iterator[Tensor]:
    """Images after the first ``done`` of them; a stream's labels, of all, are added to ``labels``."""
    if isinstance(examples, StoredExamples):
        if done < len(examples.store):
            rest = StoredExamples(Subset(examples.store, torch.arange(done, len(examples.store))))
            yield from (piece.x for piece in rest.pieces(batch_size))
        return
    for number, piece in enumerate(examples.pieces(batch_size)):
        labels.append(piece.labels)
        if number * batch_size >= done:
            yield piece.x


def _labels(examples: Examples, of_stream: list[Tensor | None]) -> Any:
    if isinstance(examples, StoredExamples):
        return None if examples.labels is None else examples.labels.numpy()
    found = [own for own in of_stream if own is not None]
    return torch.cat(found).cpu().numpy() if found and len(found) == len(of_stream) else None


def _files(examples: Examples) -> Any:
    files = getattr(getattr(examples, "store", None), "files", None)
    return None if files is None else np.array([str(path) for path in files])


def _fingerprint(model: Autoencoder) -> str:
    """Of what a code depends on: encoder and centre, at this size."""
    digest = hashlib.sha256(str(model.image_shape).encode())
    parts = [*model.encoders.state_dict().items(), ("mean", model.mean)]
    if isinstance(model, Quantized):
        parts += model.quantizer.state_dict().items()
    for name, tensor in parts:
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _described(data: Any, examples: Examples) -> str:
    """What tells data apart: their config, how many they are, and the names of files."""
    files = _files(examples)
    names = b"" if files is None else "\n".join(files).encode()
    config = json.dumps(getattr(data, "config", type(data).__name__), default=str)
    text = f"{config} {examples.count} {examples.shape}".encode() + names
    return hashlib.sha256(text).hexdigest()[:16]
