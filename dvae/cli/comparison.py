"""The runs of ``dvae compare``: which there are, where they lie, and what of them is done."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from dvae.cli import configs, fit
from dvae.cli.arguments import write_json
from dvae.cli.errors import NothingToDo, UsageError, first_line
from dvae.cli.runs import going_on
from dvae.config import class_paths
from dvae.errors import InputError, Interrupted, NonFiniteError
from dvae.estimators import named
from dvae.lab.evaluate import CodeEvaluation, Evaluation, evaluation_of
from dvae.report.curves import Curve, joined, read_curves, seconds_per_step, setting_label
from dvae.resources import bundled_folder
from dvae.training.checkpoints import Checkpoint

__all__ = ["Choice", "Comparison", "Model", "Run", "choose", "curves_below", "file_name", "single_flags", "stopped", "variant"]

_RECORD = "comparison.json"
_PACKAGE = "dvae.estimators."


class Choice(NamedTuple):
    """An estimator or another model to compare: what it is called, and the flags of ``dvae fit`` that ask for it.

    is_variant: whether the flags name a config that stands in the place of all others.
    """

    label: str
    flags: list[str]
    is_variant: bool = False

    def asked(self, further: Sequence[str]) -> list[str]:
        """All flags of a run, with those that every run is given."""
        return [*self.flags, *(_without_configs(further) if self.is_variant else further)]


def variant(config: str) -> Choice:
    """The model of a config: a file or a name of the package's.

    Raises:
        InputError: there is no such config, or it sets more than model, data and the trainer's callbacks.
    """
    flags = ["--config", configs.find_config(config)]
    for key, _ in configs.given(flags):
        if key.split(".")[0] != "model" and key.split(".")[0] != "data" and key != "trainer.callbacks":
            raise InputError(f"variants change the model alone, got {key} in {config}: what holds for all is a flag")
    return Choice(Path(flags[1]).stem, flags, is_variant=True)


def _without_configs(arguments: Sequence[str]) -> list[str]:
    """The flags but for ``--config``."""
    kept, skipped = [], False
    for argument in arguments:
        if not skipped and argument not in ("--config", "-c") and not argument.startswith("--config="):
            kept.append(argument)
        skipped = argument in ("--config", "-c")
    return kept


def choose(text: str) -> Choice:
    """The estimator that a text means: ``RELAX``, ``LOO(num_samples=4)`` or an import path, with the package's config of its name.

    Raises:
        InputError: there is no such estimator, or it does not take these arguments.
    """
    estimator = named(text)
    shipped = bundled_folder("configs") / "estimator" / f"{estimator.cls.__name__.lower()}.yaml"
    config = ["--config", str(shipped)] if estimator.path.startswith(_PACKAGE) and shipped.is_file() else []
    flags = [f"--model.estimator.{argument}={json.dumps(value)}" for argument, value in estimator.arguments.items()]
    return Choice(estimator.label, [*config, f"--model.estimator={estimator.path}", *flags])


class Run(NamedTuple):
    """One ``dvae fit`` of a comparison: its folder below the comparison's, its flags, and how many models it trains."""

    name: str
    flags: list[str]
    size: int


class Model(NamedTuple):
    """One model that was trained: what it is worth and the file it is in, or why it has no figures."""

    evaluation: Evaluation | CodeEvaluation | None
    checkpoint: str | None
    failure: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        figures = {} if self.evaluation is None else self.evaluation.as_dict()
        return {"checkpoint": self.checkpoint, "failure": self.failure, **figures}

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> Model:
        """What :meth:`as_dict` gave, back from JSON."""
        measured = {name: value for name, value in figures.items() if name not in ("checkpoint", "failure")}
        return cls(evaluation_of(measured) if measured else None, figures["checkpoint"], figures["failure"])


@dataclass
class Comparison:
    """A folder of runs of several estimators that share all other arguments, with a record of these and of what is done.

    folder: of the comparison; the runs of an estimator are in the folder of its name.
    further: the flags of ``dvae fit`` that every run is given.
    seeds: models of each setting.
    sweep: as in ``dvae fit``.
    apart: whether each seed has a run of its own, also where replicas could be.
    record: what the folder's file holds.
    """

    folder: Path
    further: Sequence[str]
    seeds: int
    sweep: Mapping[str, Sequence[Any]]
    record: dict[str, Any]
    apart: bool = False

    @classmethod
    def open(
        cls, parent: Path, further: Sequence[str], seeds: int, sweep: Mapping[str, Sequence[Any]], apart: bool = False
    ) -> Comparison:
        """The comparison below a folder that was made with the same arguments, or else a new one; nothing is written."""
        given = configs.given(fit.rewritten(further))
        settings = sorted((pair for pair in given if pair[0] != "trust"), key=lambda pair: pair[0])
        # As JSON has it, to be compared with what a file holds.
        arguments = json.loads(json.dumps({"settings": settings, "seeds": seeds, "sweep": dict(sweep)}, default=str))
        arguments |= {"apart": True} if apart else {}
        versions = {int(path.name.removeprefix("version_")): path for path in parent.glob("version_*") if path.name[8:].isdigit()}
        for _, folder in sorted(versions.items(), reverse=True):
            record = _read(folder / _RECORD)
            if record.get("arguments") == arguments:
                return cls(folder, further, seeds, sweep, record, apart)
        folder = parent / f"version_{max(versions, default=-1) + 1}"
        return cls(folder, further, seeds, sweep, {"arguments": arguments, "apart": {}, "runs": {}}, apart)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """What the sweep sets for each of its settings, in the order of the models; of no sweep one that sets nothing."""
        return [dict(zip(self.sweep, values, strict=True)) for values in itertools.product(*self.sweep.values())]

    def save(self) -> None:
        """Write the record."""
        write_json(str(self.folder / _RECORD), self.record)

    def runs(self, choice: Choice) -> list[Run]:
        """The runs of an estimator: one of all its models, or where there are no replicas of it one of each, settings first."""
        name, flags = file_name(choice.label), choice.asked(self.further)
        if self.record["apart"].get(choice.label) is not None:
            return [
                Run(
                    f"{name}/{file_name(f'{setting_label(setting)} seed={seed}')}",
                    [*flags, *single_flags(self.further, setting, seed)],
                    1,
                )
                for setting in self.settings
                for seed in range(self.seeds)
            ]
        sweep = [f"--sweep={json.dumps(dict(self.sweep))}"] if self.sweep else []
        return [Run(name, [*flags, f"--replicas={self.seeds}", *sweep], self.seeds * len(self.settings))]

    def rehearse(self, choice: Choice) -> None:
        """Take one step of an estimator's runs, so that what is wrong is found before anything is trained.

        Raises:
            InputError: or whatever else the run would end with.
        """
        apart = self.record["apart"]
        if choice.label in apart:
            return
        if self.apart:
            apart[choice.label] = "each seed was to have a run of its own (--apart)"
            for run in self.runs(choice)[:: self.seeds]:
                _rehearse(run)
            return
        apart[choice.label] = None
        (together,) = self.runs(choice)
        try:
            _rehearse(together)
        except (UsageError, Interrupted):
            raise
        except Exception as error:
            if self.seeds == 1 and not self.sweep:
                raise
            apart[choice.label] = first_line(error)
            try:
                for run in self.runs(choice)[:: self.seeds]:
                    _rehearse(run)
            except Interrupted:
                raise
            except Exception:  # it is not for being together that it fails
                raise error from None

    def train(self, run: Run) -> None:
        """Train a run to its end: from the start, from where it was stopped, or not at all where it is done."""
        done = self.record["runs"]
        if run.name in done:
            return
        checkpoint = going_on(self.folder / run.name)
        try:
            fit.main("fit", [*run.flags, f"--runs={self.folder}", f"--name={run.name}", *checkpoint])
            done[run.name] = {}
        except NothingToDo:
            done[run.name] = {}
        except NonFiniteError as error:
            done[run.name] = {"failed": str(error)}
        self.save()

    def models(self, run: Run, options: Mapping[str, Any]) -> list[Model] | None:
        """The models of a run as the record has them; None where they were not yet evaluated with these options."""
        entry = self.record["runs"][run.name]
        if "failed" in entry:
            return [Model(None, None, entry["failed"])] * run.size
        return [Model.of(figures) for figures in entry["models"]] if entry.get("options") == dict(options) else None

    def keep(self, run: Run, options: Mapping[str, Any], models: Sequence[Model]) -> None:
        """Put the models of a run into the record."""
        self.record["runs"][run.name] = {"options": dict(options), "models": [model.as_dict() for model in models]}
        self.save()

    def trusts(self, choice: Choice, checkpoint: Checkpoint) -> bool:
        """Whether the command line itself names every class that a checkpoint does, or trusts it with ``--trust``."""
        given = configs.given(choice.asked(self.further))
        if str(dict(given).get("trust", False)).lower() in ("true", "none"):  # a flag without a value is None
            return True
        content = checkpoint.content
        parts = [content["hyper_parameters"], *(content["dvae"].get("replicas") or [])]
        latents = (str(part.get("hyper_parameters", part).get("latent")) for part in parts)
        foreign = [path for path in (*class_paths(content["dvae"]), *class_paths(parts), *latents) if not path.startswith("dvae.")]
        named = json.dumps(given, default=str)
        return all("." not in path or path in named for path in foreign)

    def seconds_per_step(self, choice: Choice) -> float | None:
        """Of one model, the mean over the estimator's runs; None where too little was logged."""
        found = [(seconds_per_step(self.folder / run.name), run.size) for run in self.runs(choice)]
        seconds = [value / size for value, size in found if value is not None]
        return fmean(seconds) if seconds else None

    def curves(self, choice: Choice) -> list[Curve | None]:
        """The training ELBO of each setting, over its seeds; None where nothing was logged."""
        runs = self.runs(choice)
        found = [curves_below(self.folder / run.name) for run in runs]
        labels = [setting_label(setting) for setting in self.settings]
        if len(runs) == 1:
            return [found[0].get(label, found[0].get("")) for label in labels]
        single = [list(curves.values()) for curves in found]
        groups = [list(itertools.chain(*single[first : first + self.seeds])) for first in range(0, len(single), self.seeds)]
        return [joined(group) if group else None for group in groups]


def single_flags(further: Sequence[str], setting: Mapping[str, Any], seed: int) -> list[str]:
    """The flags of the run that a replica stands for.

    Arguments:
        further: the flags that it has in common with the others.
        setting: the model's arguments that are its own.
        seed: which one of its setting's, from 0.
    """
    given = dict(configs.given(fit.rewritten(further)))
    data = given.get("data") or "dvae.data.BinarizedMNIST"
    starts = {"seed_everything": given.get("seed_everything", 0), "model.seed": given.get("model.seed")}
    if fit.takes(str(data), "seed"):
        starts["data.seed"] = given.get("data.seed", 0)
    seeds = [f"--{key}={int(start) + seed}" for key, start in starts.items() if str(start).isdigit()]
    values = (f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in setting.items())
    return [*values, *seeds]


def stopped(checkpoint: Checkpoint) -> dict[int | None, int]:
    """Which replicas had stopped when a checkpoint was saved, for their loss was not finite, and at which iteration."""
    saved = checkpoint.content["dvae"]
    done = [entry["iteration"] for entry in saved.get("replicas") or []]
    return {index: iteration for index, iteration in enumerate(done) if iteration < saved["iteration"]}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):  # no comparison
        return {}
    return content if isinstance(content, dict) else {}


def curves_below(folder: Path) -> dict[str, Curve]:
    """The curves of the newest run below a folder, by setting; none where it failed before it logged."""
    try:
        return read_curves(folder)
    except InputError:
        return {}


def file_name(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")


def _rehearse(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        quick = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"]
        fit.main("fit", [*run.flags, f"--runs={folder}", "--name=rehearsal", *quick])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without output, logs and warnings: those of the run itself will be seen."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
