"""What a run leaves and where: its folder, its loggers, the callbacks that every run has."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from dvae.config import check_yaml, import_class, instantiate
from dvae.data import DataModule
from dvae.errors import InputError, did_you_mean
from dvae.resources import bundled_folder
from dvae.training.callbacks import Schedule

__all__ = [
    "MetricsTable",
    "base_config",
    "callbacks_of",
    "forget",
    "going_on",
    "have_folders",
    "intervals",
    "loggers_of",
    "newest",
    "put_loggers_into",
    "require_free",
    "run_table",
    "schedules_of",
    "switched_off",
]


class MetricsTable(CSVLogger):
    """Lightning's ``metrics.csv``, with a column of seconds since the run started."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.started = time.monotonic()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics({**metrics, "seconds": round(time.monotonic() - self.started, 3)}, step)


def base_config(folder: str = "") -> Path:
    """The file that every run's config starts from, in a folder of the package's configs."""
    return bundled_folder("configs") / folder / "base.yaml"


def run_table(runs: str, name: str) -> MetricsTable:
    """The table of a new version of a run.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(runs) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise InputError(f"runs: cannot write {folder}: {error.strerror}") from None
    return MetricsTable(runs, name=name)


def newest(folder: Path) -> Path:
    """The newest ``last.ckpt`` below a folder; an InputError says where there is none."""
    found = sorted(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"ckpt_path: there is no last.ckpt to resume from below {folder}")
    return found[-1]


def going_on(folder: Path) -> list[str]:
    """The flag by which ``dvae fit`` goes on with the newest run below a folder; none where there is nothing to go on with."""
    try:
        return [f"--ckpt_path={newest(folder)}"]
    except InputError:
        return []


def require_free(given: Mapping[str, Any], taken: Mapping[str, str], where: str) -> None:
    """An InputError where something is given to ``dvae fit`` that the command around it sets itself, or reads.

    Arguments:
        given: settings by name.
        taken: why each may not be given.
        where: which command, as in "to dvae compare".
    """
    for key, reason in taken.items():
        if key in given or (key == "sweep" and any(name.startswith("sweep.") for name in given)):
            raise InputError(f"{key} cannot be given {where}: {reason}")


def forget(folder: Path) -> None:
    """Remove the folder of a version of a run, and the run's where it was the only one."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other versions are in it
        folder.parent.rmdir()


def have_folders(config: Any) -> bool:
    """Whether there are loggers in a config that are told where to write."""
    return bool(_with_folders(config))


def put_loggers_into(config: Any, folder: Path) -> None:
    """Have the loggers of a config write into the run's folder where they would write to their default."""
    for logger in _with_folders(config):
        cls = import_class(logger["class_path"], object, "trainer.logger")
        parameter = inspect.signature(cls).parameters.get("save_dir")
        if parameter is not None and str(logger["init_args"]["save_dir"]) == str(parameter.default):
            logger["init_args"]["save_dir"] = str(folder / Path(str(parameter.default)).name)


def _with_folders(config: Any) -> list[Any]:
    loggers = config if isinstance(config, list) else [config]
    return [own for own in loggers if isinstance(own, (dict, Namespace)) and "save_dir" in (own.get("init_args") or {})]


def loggers_of(given: Any, table: MetricsTable) -> Any:
    """The loggers of a run: its own table first, by which Lightning calls the folder; none at all where that was asked for."""
    if given is False:
        return False
    if given is None or given is True:
        return [table, TensorBoardLogger(table.save_dir, name=table.name, version=table.version)]
    return [table, *(given if isinstance(given, (list, tuple)) else [given])]


def callbacks_of(given: Sequence[pl.Callback], without: Sequence[str], off: Sequence[type]) -> list[pl.Callback]:
    """A run's callbacks: those of the base config that none of the given ones stands for, then the given ones.

    Arguments:
        given: of config files and flags.
        without: names of classes to leave out.
        off: kinds of callbacks that the trainer was told to do without, which Lightning refuses rather than leaves out.

    Raises:
        InputError: a name in ``without`` is none of the base config's.
    """
    own = check_yaml(base_config())["trainer"]["callbacks"]
    names = [spec["class_path"].rsplit(".", 1)[1] for spec in own]
    for name in without:
        if name not in names:
            raise InputError(f"without must be out of {', '.join(names)}, got {name}{did_you_mean(name, names)}")
    added = []
    for spec, name in zip(own, names, strict=True):
        cls = import_class(spec["class_path"], pl.Callback, "trainer.callbacks")
        # A trainer takes one progress bar, of whatever kind.
        kind = ProgressBar if issubclass(cls, ProgressBar) else cls
        if name not in without and not any(isinstance(callback, kind) for callback in given):
            added.append(instantiate(spec, pl.Callback, "trainer.callbacks"))
    left_out = tuple(off)
    kept = [callback for callback in given if type(callback).__name__ not in without]
    return [callback for callback in (*added, *kept) if not isinstance(callback, left_out)]


def schedules_of(given: Mapping[str, Any]) -> list[Schedule]:
    """The callbacks that a mapping from names to points, or to arguments of :class:`dvae.training.callbacks.Schedule`, stands for.

    Raises:
        InputError: it has another form, or a schedule cannot be as it is asked for.
    """
    made = []
    known = set(inspect.signature(Schedule).parameters) - {"name"}
    for name, value in given.items():
        if not isinstance(value, Mapping):
            raise InputError(
                f"schedule of {name} must be a mapping from updates to values such as {{0: 0.0, 2000: 1.0}}, got {value!r}"
            )
        arguments = value if "points" in value else {"points": value}
        if unknown := sorted(set(arguments) - known):
            raise InputError(f"schedule of {name} has unknown keys {unknown}; expected {', '.join(sorted(known))}")
        made.append(Schedule(name, **arguments))
    return made


def switched_off(trainer: Namespace) -> list[type]:
    """The kinds of callbacks that a trainer is told to do without."""
    flags = ((ProgressBar, trainer.enable_progress_bar), (Checkpoint, trainer.enable_checkpointing))
    return [kind for kind, enabled in flags if enabled is False]


def intervals(trainer: Namespace, given: set[str], data: Any) -> dict[str, int]:
    """Intervals of validation and logs that are not longer than a short run, where they were not given."""
    steps = _length(trainer, data)
    changed: dict[str, int] = {}
    if steps is None:
        return changed
    for name, own in (("val_check_interval", steps), ("log_every_n_steps", max(1, steps // 10))):
        value = getattr(trainer, name)
        if f"trainer.{name}" not in given and isinstance(value, int) and value > own:
            changed[name] = own
    return changed


def _length(trainer: Namespace, data: Any) -> int | None:
    """Updates of a run; None where the trainer alone knows."""
    lengths = [trainer.max_steps] if trainer.max_steps is not None and trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and isinstance(data, DataModule):
        lengths.append(trainer.max_epochs * len(data.train_dataloader()))
    return min(lengths, default=None)
