"""Checkpoints: written whole, read as plain tensors and plain values, never as pickled code."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from dvae.config import current_path, public_path
from dvae.errors import InputError
from dvae.files import written_whole
from dvae.models import Autoencoder
from dvae.models.controls import CONTROLS
from dvae.models.rebuilding import MORE_VALUES, num_stored, rebuilt
from dvae.training import record
from dvae.training.module import DiscreteVAE
from dvae.training.run import Training
from dvae.training.single import Trainable

__all__ = [
    "Checkpoint",
    "DurableCheckpointIO",
    "Taken",
    "find_checkpoint",
    "init_from",
    "load_model",
    "previous_checkpoint",
    "read_checkpoint",
]


M = TypeVar("M", bound=pl.LightningModule)


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's way of writing checkpoints, such that none is ever lost.

    A file gets its name when all of it is on the disk, and the file that had the name stays beside it: of ``last.ckpt`` as
    ``last.previous.ckpt``. At every moment both names mean a whole checkpoint. Remote paths are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            InputError: it cannot be written, as on a full disk; what was there before is still there.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # torch.save's own way to a file ends the process where the disk is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path = Path(path)
        with written_whole(path) as temporary:
            temporary.write_bytes(content.getbuffer())
            if path.is_file():
                _keep(path, previous_checkpoint(path))


def previous_checkpoint(path: str | Path) -> Path:
    """Where the checkpoint is that had this name before."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _keep(path: Path, previous: Path) -> None:
    # A second name for the file, made apart: neither name is without a file for a moment.
    linked = previous.with_name(f".{previous.name}")
    linked.unlink(missing_ok=True)
    try:
        os.link(path, linked)
    except OSError:  # a file system without links
        os.replace(path, previous)
        return
    os.replace(linked, previous)
    linked.unlink(missing_ok=True)  # where both were one file already, replacing leaves both


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint file; in a folder, the newest ``best.ckpt`` below it, or else the newest ``last.ckpt``.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"checkpoint {path} does not exist")
    for name in ("best.ckpt", "last.ckpt", "*.ckpt"):
        # Hidden ones were being written when their run was killed.
        whole = (file for file in path.rglob(name) if not file.name.startswith("."))
        found = sorted(whole, key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]
    raise InputError(f"folder {path} holds no checkpoint (*.ckpt)")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint that this package wrote, read with ``weights_only=True``.

    Raises:
        InputError: the file is missing, truncated, from elsewhere, or holds pickled code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise InputError(f"checkpoint {path} holds pickled code, which is never executed; expected plain values") from None
        raise InputError(f"checkpoint {path} is damaged or not a checkpoint: it cannot be read as one") from None
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise InputError(f"checkpoint {path} is damaged or not a checkpoint: {type(error).__name__} while reading it") from None
    required = ("dvae", "hyper_parameters", "state_dict")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), dict) for key in required):
        raise InputError(f"checkpoint {path} was not written by dvae: expected a mapping with the mappings {', '.join(required)}")
    for name, tensor in checkpoint["state_dict"].items():
        if isinstance(tensor, Tensor) and tensor.numel() > num_stored(tensor) + MORE_VALUES:
            raise InputError(f"checkpoint {path} is damaged: {name} has {tensor.numel()} values, of which the file holds few")
    return record.upgraded(checkpoint)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that was read once: what its commands ask of it.

    path: of the file.
    content: plain tensors and plain values.
    """

    path: Path
    content: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint, or the best one below a folder of runs.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        path = find_checkpoint(path)
        return cls(path, read_checkpoint(path))

    @property
    def replicas(self) -> Sequence[int | None]:
        """What :meth:`model` can be asked for: the indices of several models, or None alone."""
        count = record.num_replicas(self.content)
        return [None] if count is None else range(count)

    def setting(self, replica: int | None) -> dict[str, Any]:
        """What distinguishes one of several models."""
        return {} if replica is None else record.settings_of(self.content)[replica]

    def single(self, replica: int | None = None) -> dict[str, Any]:
        """The content of an ordinary checkpoint, of one model out of several if need be.

        Raises:
            InputError: there are several models and ``replica`` says none of them, or the other way round.
        """
        if replica is not None:
            return record.extract(self.content, replica)
        if self.replicas != [None]:
            count = len(self.replicas)
            raise InputError(
                f"checkpoint {self.path} holds {count} replicas: say which one, from 0 to {count - 1} (replica=r, --replica r)"
            )
        return self.content

    def model(self, replica: int | None = None, *, trust: bool = False, **overrides: Any) -> DiscreteVAE:
        """The model, in evaluation mode; arguments and errors as of :func:`load_model`."""
        self.require_autoencoder()
        if self.is_quantized:
            raise InputError(
                f"checkpoint {self.path} is of a quantised autoencoder, which has no bound, prior or gradient estimator: dvae "
                "evaluate, sample, encode and tokenize take it, and in Python Checkpoint.open(path).autoencoder()"
            )
        return self.build(DiscreteVAE, replica, trust=trust, **overrides)

    def method(self, replica: int | None = None) -> str:
        """The name of a model's estimator, or of its quantiser."""
        arguments = self.single(replica)["hyper_parameters"]
        kind, default = ("quantizer", "FSQ") if "quantizer" in arguments else ("estimator", "RELAX")
        given = arguments.get(kind)
        return str(given.get("class_path", "")).split(".")[-1] if isinstance(given, dict) else default

    @property
    def is_quantized(self) -> bool:
        """Whether it is of a :class:`dvae.QuantizedAutoencoder`."""
        return "quantizer" in self.content["hyper_parameters"]

    def autoencoder(self, replica: int | None = None, *, trust: bool = False) -> Trainable:
        """The model, with latents or quantised, in evaluation mode; arguments and errors as of :func:`load_model`."""
        self.require_autoencoder()
        return self.build(Trainable, replica, trust=trust)

    def require_autoencoder(self) -> None:
        """An InputError where it is of policies, with the command that takes those."""
        if record.is_policy(self.content):
            raise InputError(f"checkpoint {self.path} is of policies: dvae rl evaluate measures them, dvae.rl.load gives them")

    def build(self, base: type[M], replica: int | None = None, *, trust: bool = False, parts: int = 1, **overrides: Any) -> M:
        """The module that the file names, in evaluation mode; arguments and errors as of :func:`load_model`.

        Arguments:
            base: what it is to be.
            parts: of how many modules, made one by one, each tensor of the file is stacked.
        """
        content = self.single(replica)
        arguments = dict(content["hyper_parameters"]) | overrides
        return rebuilt(
            base,
            f"checkpoint {self.path}",
            record.model_path(content),
            arguments,
            content["state_dict"],
            trust=trust,
            parts=parts,
            prepare=lambda model: model.on_load_checkpoint(content),
        )


def load_model(
    path: str | Path, *, trust: bool = False, replica: int | None = None, **overrides: Any
) -> tuple[DiscreteVAE, dict[str, Any]]:
    """Rebuild the model of a checkpoint, in evaluation mode, and return it with the checkpoint's contents.

    Arguments:
        path: a checkpoint, or a folder that holds some (see :func:`find_checkpoint`).
        trust: import classes from outside ``dvae`` that the checkpoint names; importing runs their code.
        replica: which model of a checkpoint of several, from 0.
        overrides: constructor arguments that replace the checkpoint's, such as an encoder that has no config.

    Raises:
        InputError: the file cannot be read, names a class that is not trusted, does not fit the model it names, or holds several
            models and ``replica`` says none of them.
    """
    checkpoint = Checkpoint.open(path)
    return checkpoint.model(replica, trust=trust, **overrides), checkpoint.single(replica)


class Taken(NamedTuple):
    """What :func:`init_from` did, names of tensors each; as text it is one line.

    taken: of the model, with the checkpoint's values; ``mean`` stands for what is set with it.
    new: of the model, as it was made.
    left: of the checkpoint, which the model does not have.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        text = f"took {', '.join(_groups(self.taken, (*self.new, *self.left)))}"
        for title, names, others in (("new", self.new, self.taken), ("left there", self.left, (*self.taken, *self.new))):
            if names:
                counts = _groups(names, others).items()
                text += f"; {title}: " + ", ".join(f"{n} ({c} tensor{'s' if c > 1 else ''})" for n, c in counts)
        return text


_STATISTICS = ("mean", "output_bias", "mean_is_set")


def init_from(model: Autoencoder | Training, checkpoint: str | Path | Checkpoint, *, replica: int | None = None) -> Taken:
    """Start a model from a checkpoint's weights, of the same model or of one with another estimator, likelihood or network.

    All tensors of the same name and shape are taken, the data's mean included; the rest is as it was made. Optimizer, iteration,
    seed, beta, free_bits and kl_balance stay the model's own. Nothing but tensors is read, and no code.

    Arguments:
        model: changed in place; of :class:`dvae.Replicas` each model is.
        checkpoint: a file, or a folder that holds some (see :func:`find_checkpoint`).
        replica: which model of a checkpoint of several, from 0.

    Raises:
        InputError: the file cannot be read, nothing of encoder, decoder and prior fits, or the checkpoint holds several models and
            ``replica`` says none of them.
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
    checkpoint.require_autoencoder()
    count = len(checkpoint.replicas)
    if replica is None and checkpoint.replicas != [None]:
        raise InputError(
            f"checkpoint {checkpoint.path} holds {count} replicas: say whose weights, from 0 to {count - 1} (replica=r, "
            "--init_from_replica r)"
        )
    content = checkpoint.single(replica)
    models = list(model.models) if isinstance(model, Training) else [model]
    taken = [_take(own, content, checkpoint.path) for own in models]
    return taken[0]


def _take(model: Autoencoder, content: Mapping[str, Any], path: Path) -> Taken:
    own, saved = model.state_dict(), content["state_dict"]
    fits = [name for name, tensor in own.items() if isinstance(saved.get(name), Tensor) and saved[name].shape == tensor.shape]
    if not set(fits) & {name for name, _ in model.named_theta()}:
        raise InputError(f"nothing of encoder, decoder and prior fits checkpoint {path}: {_differences(model, saved)}")
    settings = {f"_{name}" for name in CONTROLS}
    skipped = settings | _other_statistics(model, content, fits)
    taken = [name for name in fits if name not in skipped]
    for name in taken:
        if saved[name].is_complex() or not saved[name].isfinite().all():
            raise InputError(f"checkpoint {path}: {name} must hold finite real numbers, but does not")
    with torch.no_grad():
        for name in taken:
            own[name].copy_(saved[name])
        if "mean_is_set" in taken and "output_bias" not in taken and own["mean_is_set"]:
            model.set_mean(own["mean"].clone())  # the outputs start where this likelihood has them for that mean
    told = {name for name in (*own, *saved) if name not in settings and name not in _STATISTICS[1:]}
    return Taken(
        tuple(name for name in taken if name in told),
        tuple(name for name in own if name in told and name not in taken),
        tuple(name for name in saved if name in told and name not in own),
    )


def _other_statistics(model: Autoencoder, content: Mapping[str, Any], fits: Sequence[str]) -> set[str]:
    """What is not of this model's data or likelihood, although a tensor of the name is there."""
    if "mean" not in fits:
        return set(_STATISTICS)
    if _same_likelihood(model, content):
        return set()
    parts = {name for name in fits if name.startswith("likelihood.")}
    # A standard deviation that the checkpoint may not have comes from the data, and the mean with it.
    return parts | set(_STATISTICS if model.likelihood.needs_std else _STATISTICS[1:2])


def _differences(model: Autoencoder, saved: Mapping[str, Any]) -> str:
    shapes = [
        f"{name} is {tuple(saved[name].shape)} there and {tuple(parameter.shape)} in the model"
        for name, parameter in model.named_theta()
        if isinstance(saved.get(name), Tensor)
    ]
    return ", ".join(shapes) or "none of its tensors has a name of the model's"


def _same_likelihood(model: Autoencoder, content: Mapping[str, Any]) -> bool:
    saved = content["hyper_parameters"].get("likelihood")
    path = "dvae.likelihoods.Bernoulli" if saved is None else saved.get("class_path") if isinstance(saved, Mapping) else None
    return isinstance(path, str) and current_path(path) == public_path(type(model.likelihood))


def _groups(names: Iterable[str], others: Sequence[str]) -> dict[str, int]:
    """The shortest beginnings of dotted names that none of the others has, and how many names each stands for."""
    found: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        beginnings = (".".join(parts[: length + 1]) for length in range(len(parts)))
        short = next(start for start in beginnings if not any(f"{other}.".startswith(f"{start}.") for other in others))
        found[short] = found.get(short, 0) + 1
    return found
