"""A sweep as a study of Optuna: workers, on one machine or many, share its trials, and none is lost with its worker.

Optuna rather than Ray Tune: all that workers need to share is a database, SQLite's file or a server's address, and each is an
ordinary process that any scheduler starts and ends; Ray wants a cluster of daemons of its own and the workers under its control.
Optuna's queue, heartbeats, samplers and pruners are used as they are. Its own retry makes a new trial in the process that finds a
dead one, and is lost if that dies too; here every worker compares what should be with what is, so that nothing depends on one.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_warn

from dvae.errors import InputError

__all__ = ["PRUNERS", "Claim", "Outcome", "Pruning", "Study"]

PRUNERS = {"none": "NopPruner", "median": "MedianPruner", "halving": "SuccessiveHalvingPruner"}
"""Optuna's classes: keep all, stop what is below the median of the others at its step, asynchronous successive halving (Li et al.
2020)."""

_RANGES = ("uniform", "log")
# Heartbeats that a worker may miss before its trial is another's.
_MISSED = 3
_FAILURE, _INDEX, _ARGUMENTS = "failure", "index", "arguments"


class Claim(NamedTuple):
    """A trial that this worker has.

    number: which one of the sweep's, from 0.
    setting: values of the model's arguments.
    seed: which model of that setting, from 0.
    trial: Optuna's ``Trial``.
    """

    number: int
    setting: dict[str, Any]
    seed: int
    trial: Any


class Outcome(NamedTuple):
    """What became of one trial of a sweep.

    state: "complete", "pruned", "failed" or, where it is not at its end, "open".
    value: of the measure; None where there is none.
    failure: why it failed.
    """

    number: int
    setting: dict[str, Any]
    seed: int
    state: str
    value: float | None
    failure: str | None


class Study:
    """The trials of a sweep in a database that workers share.

    Every worker opens the study with the same arguments. What is missing of it is put into the queue by whoever finds it missing;
    of trials that two workers put there at once the later one is dropped before it starts. A trial whose worker is not heard of for
    three heartbeats is free again, and whoever takes it goes on from its last checkpoint.

    Arguments:
        storage: SQLAlchemy's address of a database: ``sqlite:///sweep.db`` is a file, for processes of one machine.
        name: of the study in the database.
        sweep: for each argument of the model the values that it takes, or ``{"uniform": [a, b]}`` or ``{"log": [a, b]}``, a range.
        replicas: models of each setting.
        trials: how many settings are tried; of a sweep without ranges all are, and it must be None.
        pruner: out of :data:`PRUNERS`.
        heartbeat: seconds from one sign of life to the next.
        arguments: what else two workers must agree on.

    Raises:
        InputError: Optuna is not installed, an argument is outside its range, the database cannot be opened, or the study was made
            with other arguments.
    """

    def __init__(
        self,
        storage: str,
        name: str,
        sweep: Mapping[str, Any],
        replicas: int = 1,
        *,
        trials: int | None = None,
        pruner: str = "none",
        heartbeat: int = 30,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.sweep = {key: _values_of(key, value) for key, value in sweep.items()}
        self.replicas, self.heartbeat = replicas, heartbeat
        for label, value in {"replicas": replicas, "heartbeat": heartbeat}.items():
            if value < 1:
                raise InputError(f"{label} must be at least 1, got {value}")
        if pruner not in PRUNERS:
            raise InputError(f"pruner must be out of {', '.join(PRUNERS)}, got {pruner}")
        self.has_ranges = any(isinstance(values, dict) for values in self.sweep.values())
        if self.has_ranges and (trials is None or trials < 1):
            raise InputError(f"trials must say how many settings of a sweep with ranges are tried, at least 1, got {trials}")
        if not self.has_ranges and trials is not None:
            raise InputError(f"trials is for sweeps with ranges, got {trials}: of lists every combination is tried, leave it out")
        self.settings = None if self.has_ranges else [dict(zip(self.sweep, v, strict=True)) for v in _product(self.sweep)]
        self.size = replicas * (trials or len(self.settings or []))
        self._optuna = _library()
        self._open(storage, name, pruner)
        self._agree(name, {"sweep": self.sweep, "replicas": replicas, "trials": trials, "pruner": pruner, **(arguments or {})})

    def _open(self, storage: str, name: str, pruner: str) -> None:
        optuna = self._optuna
        waiting = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
        beats = {"heartbeat_interval": self.heartbeat, "grace_period": _MISSED * self.heartbeat}
        try:
            with _quiet(optuna):
                self._storage = optuna.storages.RDBStorage(storage, engine_kwargs=waiting, **beats)
                self._study = optuna.create_study(
                    storage=self._storage,
                    study_name=name,
                    direction="maximize",
                    load_if_exists=True,
                    sampler=optuna.samplers.TPESampler(constant_liar=True),
                    pruner=getattr(optuna.pruners, PRUNERS[pruner])(),
                )
        except Exception as error:  # SQLAlchemy and the database's driver have errors of their own
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"storage {storage} cannot be opened as a database, such as sqlite:///sweep.db: {reason}") from None
        self._id = self._storage.get_study_id_from_name(name)

    def _agree(self, name: str, arguments: Mapping[str, Any]) -> None:
        given = json.dumps(arguments, sort_keys=True, default=str)
        known = self._study.user_attrs.get(_ARGUMENTS)
        if known is None:
            self._study.set_user_attr(_ARGUMENTS, given)
        elif known != given:
            before = json.loads(known)
            differ = [key for key, value in json.loads(given).items() if before.get(key) != value]
            raise InputError(
                f"name {name} is that of a study in this storage with another {', '.join(differ)}: all workers are started by "
                "the same command; give another --name for another sweep"
            )

    def claim(self) -> Claim | None:
        """The next trial for this worker; waits for what others have, and returns None where all trials are at their end."""
        said = False
        while True:
            with _quiet(self._optuna):
                self._optuna.storages.fail_stale_trials(self._study)
                self._fill_in()
                trials = self._trials()
                for trial in trials:
                    if trial.state.name == "WAITING" and (claim := self._take(trial, trials)) is not None:
                        return claim
            running = sum(trial.state.name in ("RUNNING", "WAITING") for trial in self._trials())
            if not running:
                return None
            if not said:
                print(f"waiting for {running} trial(s) of other workers", flush=True)
                said = True
            time.sleep(min(self.heartbeat, 5))

    def _trials(self) -> list[Any]:
        return sorted(self._study.get_trials(deepcopy=False), key=lambda trial: trial.number)

    def _fill_in(self) -> None:
        """Put into the queue what no trial stands for."""
        trials = self._trials()
        settled = {trial.user_attrs.get(_INDEX) for trial in trials if not _is_abandoned(trial)}
        for index in sorted(set(range(self.size)) - settled):
            # Of a range the value that was drawn before.
            before = [
                trial.params for trial in trials if trial.user_attrs.get(_INDEX) == index and len(trial.params) == len(self.sweep)
            ]
            drawn = before[-1] if before else {}
            params = drawn if self.settings is None else self.settings[index // self.replicas]
            self._study.enqueue_trial(params, user_attrs={_INDEX: index})

    def _take(self, trial: Any, trials: Sequence[Any]) -> Claim | None:
        number = self._storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)
        self._storage.record_heartbeat(number)  # before it runs: without one it would never be found dead
        if not self._move(number, "RUNNING"):
            return None
        index = trial.user_attrs[_INDEX]
        if any(t.number < trial.number and t.user_attrs.get(_INDEX) == index and not _is_abandoned(t) for t in trials):
            self._move(number, "FAIL")
            return None
        own = self._optuna.trial.Trial(self._study, number)
        return Claim(index, {key: _suggested(own, key, values) for key, values in self.sweep.items()}, index % self.replicas, own)

    def _move(self, number: int, state: str, value: float | None = None) -> bool:
        """Whether the trial went into that state, and not another worker's."""
        values = None if value is None else [value]
        try:
            return self._storage.set_trial_state_values(number, self._optuna.trial.TrialState[state], values)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return False

    @contextmanager
    def alive(self, claim: Claim) -> Iterator[None]:
        """Signs of life while the block runs."""
        number, stop = self._number(claim), threading.Event()

        def beat() -> None:
            while not stop.wait(self.heartbeat):
                try:
                    self._storage.record_heartbeat(number)
                except Exception as error:  # a database that does not answer now may do so at the next beat
                    rank_zero_warn(f"no sign of life could be written to the study's storage: {error}")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _number(self, claim: Claim) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, claim.trial.number)

    def finish(self, claim: Claim, value: float, pruned: bool = False) -> bool:
        """Record a trial that is at its end; False where another worker had taken it over, for this one was not heard of."""
        return self._move(self._number(claim), "PRUNED" if pruned else "COMPLETE", value)

    def fail(self, claim: Claim, reason: str) -> bool:
        """Record why a trial has no value; it is not tried again."""
        try:
            claim.trial.set_user_attr(_FAILURE, reason)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return False
        return self._move(self._number(claim), "FAIL")

    def release(self, claim: Claim) -> None:
        """Give a trial back, for another worker to go on with."""
        self._move(self._number(claim), "FAIL")

    def outcomes(self) -> list[Outcome]:
        """What became of each trial, in the sweep's order."""
        found: dict[int, Outcome] = {}
        for trial in self._trials():
            index = trial.user_attrs.get(_INDEX)
            if index is None or index in found or _is_abandoned(trial):
                continue
            state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "open")
            setting = dict(trial.params) if self.settings is None else self.settings[index // self.replicas]
            value = None if not trial.values else float(trial.values[0])
            found[index] = Outcome(index, setting, index % self.replicas, state, value, trial.user_attrs.get(_FAILURE))
        return [found[index] for index in sorted(found)]


class Pruning(pl.Callback):
    """Reports a measure after each validation to a trial, and ends the run where its study's pruner says so.

    Arguments:
        claim: the trial.
        metric: a name that validation logs; the larger, the better.

    Raises:
        InputError: validation logs nothing of that name.
    """

    def __init__(self, claim: Claim, metric: str) -> None:
        self.trial, self.metric, self.pruned = claim.trial, metric, False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.metric)
        if value is None:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise InputError(f"metric must be logged by validation, one of {known or 'none'}, got {self.metric}")
        if math.isfinite(float(value)):
            self.trial.report(float(value), trainer.global_step)
            if self.trial.should_prune():
                self.pruned = True
                trainer.should_stop = True


def _values_of(name: str, value: Any) -> list[Any] | dict[str, list[float]]:
    """A list of values, or a range with its two ends as numbers."""
    if isinstance(value, (list, tuple)) and value:
        if not all(isinstance(own, (bool, int, float, str, type(None))) for own in value):
            raise InputError(f"sweep: values of {name} must be numbers or names where an engine is used, got {list(value)}")
        return list(value)
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in _RANGES:
        ((kind, ends),) = value.items()
        try:
            low, high = (float(end) for end in ends)
        except (TypeError, ValueError):
            low, high = math.nan, math.nan
        if low < high and (kind == "uniform" or low > 0):
            return {str(kind): [low, high]}
    raise InputError(
        f"sweep must give a list of values for each argument, or a range {{uniform: [a, b]}} or {{log: [a, b]}}, 0 < a < b, got "
        f"{value!r} for {name}"
    )


def _product(sweep: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*sweep.values())


def _suggested(trial: Any, name: str, values: list[Any] | dict[str, list[float]]) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    ((kind, (low, high)),) = values.items()
    return trial.suggest_float(name, low, high, log=kind == "log")


def _is_abandoned(trial: Any) -> bool:
    """Whether a trial came to no end, its worker having died or given it back, or another one standing for it."""
    return trial.state.name == "FAIL" and _FAILURE not in trial.user_attrs


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's lines about each trial, and without its warnings that a feature is new."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _library() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("engine optuna needs Optuna, which is not installed: pip install 'discrete-vae[sweep]'") from None
    return optuna
