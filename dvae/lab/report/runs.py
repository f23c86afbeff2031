"""The runs that a page shows: what their folders hold, read once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dvae.data import Examples, examples_of
from dvae.errors import InputError
from dvae.lab.evaluate import CodeEvaluation, Evaluation, evaluation_of, open_autoencoder, picture_shape, sized_for
from dvae.models import VAE, Autoencoder
from dvae.report.curves import Curve, read_curves
from dvae.report.folders import read_config
from dvae.report.tables import labels
from dvae.training import record
from dvae.training.checkpoints import Checkpoint

__all__ = ["Opened", "Run", "Source", "open_runs"]

_RECORD = "comparison.json"


class Source(NamedTuple):
    """Where models' data are from and where it is computed; as the arguments of :func:`dvae.lab.evaluate.evaluate`."""

    data: Any
    split: str
    device: str | torch.device | None
    trust: bool


@dataclass(frozen=True)
class Opened:
    """A model with its data.

    model: at the size of the examples.
    data: a data module, or what else was given.
    examples: of the split.
    """

    model: Autoencoder
    data: Any
    examples: Examples

    @property
    def latent_model(self) -> VAE:
        """The model where it has latents.

        Raises:
            InputError: it is quantised.
        """
        if not isinstance(self.model, VAE):
            raise InputError("a quantised autoencoder has no distribution of its code, no prior and no gradient estimator")
        return self.model

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) to draw x in; errors as of :func:`dvae.lab.evaluate.picture_shape`."""
        return picture_shape(self.model, self.data, self.examples)

    def inputs(self, number: int, seed: int) -> torch.Tensor:
        """So many examples drawn from the split, [number, num_pixels], on the model's device."""
        return self.model.check_input(self.examples.some(number, seed).to(self.model.device))


@dataclass
class Run:
    """A run's folder.

    label: what tells it from the others of the page.
    folder: with ``metrics.csv`` and ``config.yaml``, where it has them.
    checkpoint: None where it has none, or :attr:`missing` says why.
    group: runs of one group are models of one setting, each trained apart.
    evaluated: what ``dvae compare`` measured of each model, None where it failed; empty where it did not.
    """

    label: str
    folder: Path
    checkpoint: Checkpoint | None
    missing: str
    source: Source
    group: str = ""
    evaluated: list[Evaluation | CodeEvaluation | None] = field(default_factory=list)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Of the run, empty where its folder has none."""
        return read_config(self.folder)

    @property
    def data_name(self) -> str:
        """What its data are called: the class, and the file or set that it reads."""
        config = self.config.get("data") or (record.data_of(self.checkpoint.content) if self.checkpoint is not None else None)
        if not isinstance(config, dict):
            return "data of its own"
        arguments = config.get("init_args") or {}
        named = [str(arguments[name]) for name in ("path", "train", "dataset") if arguments.get(name)]
        return " ".join([str(config.get("class_path", "")).split(".")[-1], *named])

    @property
    def replicas(self) -> Sequence[int | None]:
        """Of the checkpoint."""
        return self.require_checkpoint().replicas

    def require_checkpoint(self) -> Checkpoint:
        """The checkpoint.

        Raises:
            InputError: there is none.
        """
        if self.checkpoint is None:
            raise InputError(self.missing)
        return self.checkpoint

    @cached_property
    def opened(self) -> Opened:
        """The first model, which pictures are of, with its data.

        Raises:
            InputError: there is none, or it or its data cannot be had.
        """
        return self._open(self.replicas[0], self.source.data)

    def open(self, replica: int | None) -> Opened:
        """One of the models, with the data of the first; errors as of :attr:`opened`."""
        return self.opened if replica == self.replicas[0] else self._open(replica, self.opened.data)

    def _open(self, replica: int | None, data: Any) -> Opened:
        _, split, device, trust = self.source
        model, data, _ = open_autoencoder(self.require_checkpoint(), data, device=device, trust=trust, replica=replica)
        examples = examples_of(data, split, input_key=getattr(model, "input_key", None), trust=trust)
        return Opened(sized_for(model, examples), data, examples)

    def curves(self, name: str) -> dict[str, Curve]:
        """A logged quantity of each setting of a sweep, or under ""; empty where it was not logged."""
        try:
            return read_curves(self.folder, name)
        except InputError:
            return {}


def open_runs(paths: Sequence[str | Path], source: Source) -> list[Run]:
    """The runs of folders, those of a comparison one by one.

    Arguments:
        paths: runs, folders of runs, of which the newest is taken, checkpoints, or comparisons that ``dvae compare`` made.
        source: where the models' data are from.

    Raises:
        InputError: there is no such folder, or it holds neither a checkpoint nor a log.
    """
    whole = [Path(path) for path in dict.fromkeys(map(str, paths))]
    if not whole:
        raise InputError("runs must name at least one run's folder, got none")
    runs: list[Run] = []
    for path, label in zip(whole, labels(whole), strict=True):
        record = _comparison(path)
        if record is None:
            runs.append(_run(path, label, source))
        else:
            runs += _compared(record, "" if len(whole) == 1 else f"{label}: ", source)
    return runs


def _run(path: Path, label: str, source: Source) -> Run:
    checkpoint, missing = None, ""
    try:
        checkpoint = Checkpoint.open(path)
        checkpoint.require_autoencoder()
    except InputError as error:
        checkpoint, missing = None, str(error)
    tables = sorted(path.rglob("metrics.csv"), key=lambda file: file.stat().st_mtime) if path.is_dir() else []
    if checkpoint is None and not tables:
        raise InputError(f"runs must be folders with a checkpoint or a metrics.csv: {missing}")
    folder = tables[-1].parent if checkpoint is None else _folder_of(checkpoint.path)
    return Run(label, folder, checkpoint, missing, source, label)


def _folder_of(checkpoint: Path) -> Path:
    """The run's folder, which is the checkpoint's or the one around it."""
    own = checkpoint.parent
    around = (own, own.parent)
    return next((folder for folder in around if any((folder / name).is_file() for name in ("metrics.csv", "config.yaml"))), own)


def _comparison(path: Path) -> Path | None:
    """The newest record of a comparison in a folder or its versions."""
    found = [path / _RECORD, *path.glob(f"version_*/{_RECORD}")]
    newest = sorted((file for file in found if file.is_file()), key=lambda file: file.stat().st_mtime)
    return newest[-1] if newest else None


def _compared(record: Path, prefix: str, source: Source) -> list[Run]:
    """The runs of a comparison that are done, with what was measured of them."""
    try:
        entries = json.loads(record.read_text())["runs"]
        runs = [_of_entry(record.parent, name, entry, prefix, source) for name, entry in entries.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{record} is damaged or not a comparison's record: {type(error).__name__} while reading it") from None
    if not runs:
        raise InputError(f"{record.parent} is a comparison of which no run is done yet: the same dvae compare goes on with it")
    return runs


def _of_entry(folder: Path, name: str, entry: dict[str, Any], prefix: str, source: Source) -> Run:
    run = _run(folder / name, prefix + name, source)
    run.group = re.sub(r"/?\s*seed=\d+$", "", prefix + name)
    for figures in entry.get("models", []):
        measured = {key: value for key, value in figures.items() if key not in ("checkpoint", "failure")}
        run.evaluated.append(evaluation_of(measured) if measured else None)
    return run
