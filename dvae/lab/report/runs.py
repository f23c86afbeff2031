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
from dvae.report.curves import Curve, read_curves, setting_label
from dvae.report.folders import read_config, tables_below
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
    read: data modules that were read for any of the page's runs, by their configs.
    """

    label: str
    folder: Path
    checkpoint: Checkpoint | None
    missing: str
    source: Source
    group: str = ""
    evaluated: list[Evaluation | CodeEvaluation | None] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict, repr=False)
    _curves: dict[str, dict[str, Curve]] = field(default_factory=dict, repr=False)

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

    def setting(self, replica: int | None) -> str:
        """What a sweep sets for a model, without its seed."""
        own = self.require_checkpoint().setting(replica)
        return setting_label({name: value for name, value in own.items() if name != "seed"})

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
        first = self.replicas[0]
        config = json.dumps(record.data_of(self.require_checkpoint().single(first)), sort_keys=True, default=str)
        data = self.read.get(config) if self.source.data is None else self.source.data
        opened = self._open(first, data)
        self.read[config] = opened.data
        return opened

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
        if name not in self._curves:
            try:
                self._curves[name] = read_curves(self.folder, name)
            except InputError:
                self._curves[name] = {}
        return self._curves[name]


def open_runs(paths: Sequence[str | Path], source: Source) -> list[Run]:
    """The runs of folders, those of a comparison one by one.

    Arguments:
        paths: runs, folders of runs, of which the newest is taken, checkpoints, or comparisons that ``dvae compare`` made.
        source: where the models' data are from.

    Raises:
        InputError: there is no such folder, or it holds neither a checkpoint nor a log.
    """
    whole = list(dict.fromkeys(map(Path, paths)))
    if not whole:
        raise InputError("runs must name at least one run's folder, got none")
    runs: list[Run] = []
    for path, label in zip(whole, labels(whole), strict=True):
        found = _comparison(path)
        if found is None:
            runs.append(_run(path, label, source))
        else:
            runs += _compared(found, "" if len(whole) == 1 else f"{label}: ", source)
    read: dict[str, Any] = {}
    for run in runs:
        run.read = read
    return runs


def _run(path: Path, label: str, source: Source) -> Run:
    checkpoint, missing = None, ""
    try:
        checkpoint = Checkpoint.open(path)
    except InputError as error:
        missing = str(error)
    if checkpoint is not None:
        checkpoint.require_autoencoder()
        return Run(label, _folder_of(checkpoint.path), checkpoint, "", source, label)
    folder = _logged(path)
    if folder is None:
        raise InputError(f"runs must be folders with a checkpoint or a metrics.csv: {missing}")
    return Run(label, folder, None, missing, source, label)


def _logged(path: Path) -> Path | None:
    """The newest folder with a log in a folder; None where there is none."""
    tables = tables_below(path)
    return tables[-1].parent if tables else None


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


def _compared(path: Path, prefix: str, source: Source) -> list[Run]:
    """The runs of a comparison that are done, with what was measured of them."""
    try:
        entries = dict(json.loads(path.read_text())["runs"])
        measured = {name: _models(entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged or not a comparison's record: {type(error).__name__} while reading it") from None
    if not measured:
        raise InputError(f"{path.parent} is a comparison of which no run is done yet: the same dvae compare goes on with it")
    runs = []
    for name, models in measured.items():
        folder, label = path.parent / name, prefix + name
        if "failed" in entries[name]:
            failure = f"its training failed: {entries[name]['failed']}"
            run = Run(label, _logged(folder) or folder, None, failure, source)
        else:
            run = _run(folder, label, source)
        # Models that were trained apart are one setting's, as replicas are.
        run.group, run.evaluated = re.sub(r"[/_]seed=\d+$", "", label), models
        runs.append(run)
    return runs


def _models(entry: dict[str, Any]) -> list[Evaluation | CodeEvaluation | None]:
    """What a comparison's record holds of a run's models."""
    found = []
    for figures in entry.get("models", []):
        measured = {key: value for key, value in figures.items() if key not in ("checkpoint", "failure")}
        found.append(evaluation_of(measured) if measured else None)
    return found
