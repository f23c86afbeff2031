"""``dvae rl fit``: agents trained with Lightning's Trainer behind a command line."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.loggers import Logger

from dvae.cli import configs, hints, resume, runs
from dvae.cli.arguments import Parser, flags_of, innermost, quiet_lightning, usage_sentence, with_configs
from dvae.cli.errors import NothingToDo, UsageError, told
from dvae.cli.help import readable
from dvae.config import class_paths, instantiate, is_trusted, require_trust
from dvae.errors import InputError, Interrupted
from dvae.estimators import REINFORCE
from dvae.files import written_whole
from dvae.rl import PolicyGradient, Rollouts
from dvae.rl.checkpoints import check_environment, foreign, open_policies
from dvae.training import record
from dvae.training.callbacks import BestCheckpoint, LastCheckpoint, ProgressBar
from dvae.training.checkpoints import Checkpoint, DurableCheckpointIO

__all__ = ["SHELVES", "main", "settings"]

SHELVES = ("rl",)
"""Where the package's configs of policies are."""

_STEPS_PER_CHECKPOINT = 100
_TRAINER = ("max_steps", "max_time", "log_every_n_steps", "enable_progress_bar", "logger", "callbacks")
_CLASSES: Mapping[str, type] = {"model": PolicyGradient, "model.estimator": REINFORCE, "data": Rollouts}

_TEXTS = {
    "--model": "a YAML file of the model's arguments",
    "--data": "a YAML file of the environments' arguments",
    "--trainer": "a YAML file of the trainer's arguments",
    "--trainer.max_steps": "updates; -1 for as many as the model's max_environment_steps, stop_when_solved or max_time allow",
    "--trainer.max_time": "when to stop, DD:HH:MM:SS",
    "--trainer.log_every_n_steps": "updates from one row of metrics to the next (default: 10)",
    "--trainer.enable_progress_bar": "whether there is one",
    "--trainer.logger": "loggers beside metrics.csv, TensorBoard by default; false for none at all",
    "--trainer.callbacks": "further callbacks, or of the same kind as one that every run has, in its place",
    "Agents trained with the policy gradient, whose estimator is pluggable": "model",
    "Rollouts of the policy that is being trained, a batch each, in environments of gymnasium": "environments",
    "Customize every aspect of training via flags": "Lightning's trainer",
}

# What may be set anew where a run goes on: it changes no update, or when the run ends alone.
_FREE = frozenset({"compile", "max_environment_steps", "solved_at", "stop_when_solved"})


def main(command: str, arguments: Sequence[str]) -> int:
    """Build a trainer, a model and environments from the arguments, and train."""
    quiet_lightning()
    arguments = with_configs(arguments)
    parser = _parser(command, arguments)
    config = parser.parse_args(arguments)
    if config.threads:
        torch.set_num_threads(config.threads)
    # As in dvae fit: weights that decay to nothing slow down the CPU.
    torch.set_flush_denormal(True)
    _require_estimator([key for key, _ in parser.settings])
    name = configs.run_name(arguments, SHELVES) if config.name is None else config.name
    checkpoint = _checkpoint(config, name, [*command.split(), *arguments])
    _train(parser, config, name, checkpoint, [key for key, _ in parser.settings])
    return 0


# Arguments


class _ConfigFile(configs.ConfigFile):
    shelves = SHELVES


class _Parser(Parser):
    """A parser that tells what is wrong with the model or the data."""

    settings: Sequence[tuple[str, Any]] = ()
    """Of the class: jsonargparse makes further parsers for the arguments of classes."""

    def format_help(self, *args: Any) -> str:
        return readable(ArgumentParser.format_help(self, *args), brief="--trainer", replaced=_TEXTS)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a parser of one alternative out of several
            super(Parser, self).error(message, ex)
        sentence = told(ex)
        if sentence is not None:
            raise InputError(sentence) from ex
        sentence = hints.explain(type(self).settings, _CLASSES)
        raise UsageError(sentence or usage_sentence(innermost(message), flags_of(self), self.prog)) from ex


def _parser(command: str, arguments: Sequence[str]) -> _Parser:
    description = "Train agents. Settings come from the package's rl/base.yaml, then --config files in their order, then flags."
    parser = _Parser(command, description, default_config_files=[str(runs.base_config("rl"))], parser_mode=configs.MODE)
    _Parser.settings = configs.given(arguments, SHELVES)
    text = (
        "a YAML file, given once or more; cartpole_relax and so on name the package's own, of configs/rl (cartpole, pendulum and "
        "lunarlander, each with a2c and with relax or lax)"
    )
    parser.add_argument("-c", "--config", action=_ConfigFile, help=text)
    parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
    text = "name of the run, by default of its configs, such as cartpole_relax; each gets a new RUNS/NAME/version_K"
    parser.add_argument("--name", type=str | None, default=None, help=text)
    text = (
        "a checkpoint to go on from, or a folder of runs, or last, the newest of the run; its arguments hold where none are given"
    )
    parser.add_argument("--ckpt_path", type=str | None, default=None, help=text)
    text = "CPU threads of PyTorch, 0 for its own choice; more than one make networks of this size slower"
    parser.add_argument("--threads", type=int, default=1, help=text)
    text = "import classes from outside dvae that the checkpoint names; it runs their code"
    parser.add_argument("--trust", action="store_true", help=text)
    parser.add_class_arguments(PolicyGradient, "model", fail_untyped=False, instantiate=False)
    parser.add_class_arguments(Rollouts, "data", skip={"env"}, fail_untyped=False, instantiate=False)
    text = (
        'an id of gymnasium, such as "CartPole-v1", or the import path of a function that makes an environment; needed where no '
        "checkpoint says it"
    )
    parser.add_argument("--data.env", type=str | None, default=None, help=text)
    left_out = set(inspect.signature(pl.Trainer).parameters) - set(_TRAINER)
    parser.add_class_arguments(pl.Trainer, "trainer", skip=left_out, fail_untyped=False, instantiate=False)
    return parser


def _require_estimator(given: Sequence[str]) -> None:
    of_it = [key for key in given if key.startswith("model.estimator.") and not key.endswith(".help")]
    if of_it and not {"model.estimator", "ckpt_path"} & set(given):
        name = of_it[0].removeprefix("model.estimator.")
        raise InputError(f"model.estimator must be given, the class whose argument {name} is: --model.estimator RELAX, say")


def settings(command: str, arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What ``dvae rl fit`` would make of arguments: those of the model and of the environments, and the folder of runs."""
    config = _parser(command, arguments).parse_args(arguments)
    return config.model.as_dict(), config.data.as_dict(), config.runs


# Going on


def _checkpoint(config: Namespace, name: str, command: Sequence[str]) -> Checkpoint | None:
    if config.ckpt_path is None:
        return None
    path = Path(config.runs) / name if config.ckpt_path == "last" else Path(config.ckpt_path)
    if config.ckpt_path == "last" or path.is_dir():
        path = runs.newest(path)
    return open_policies(resume.open_resumable(path, lambda other: resume.resume_command(command, other)))


def _continued(checkpoint: Checkpoint, config: Namespace, given: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configs of model and data with the arguments of a checkpoint; an InputError where others were given."""
    model, data = _configs(config)
    own = resume.model_config(checkpoint, model, given, _FREE, config.trust)
    model = {"class_path": own["class_path"], "init_args": {**model["init_args"], **own["init_args"]}}
    return model, _same_environments(checkpoint, data, given, config.trust)


def _same_environments(checkpoint: Checkpoint, asked: dict[str, Any], given: Sequence[str], trust: bool) -> dict[str, Any]:
    saved = record.data_of(checkpoint.content)
    if not isinstance(saved, Mapping) or not isinstance(saved.get("init_args"), Mapping):
        return asked
    # An environment that a function made is in no file.
    known = {name: value for name, value in saved["init_args"].items() if name != "env" or isinstance(value, str)}
    names = {key.split(".")[1] for key in given if key.startswith("data.")}
    for name in names & set(known):
        if asked["init_args"][name] != known[name]:
            raise InputError(
                f"--data.{name} is {known[name]} in the checkpoint {checkpoint.path}, got {asked['init_args'][name]}: leave it out "
                "to keep the checkpoint's, or start a new run without --ckpt_path"
            )
    require_trust(f"checkpoint {checkpoint.path}", [str(saved.get("class_path"))], trust)
    check_environment(checkpoint, {name: value for name, value in known.items() if name not in names}, trust)
    return {"class_path": saved["class_path"], "init_args": {**asked["init_args"], **known}}


def _require_something_to_do(checkpoint: Checkpoint, model: PolicyGradient, max_steps: int) -> None:
    resume.require_something_to_do(checkpoint, max_steps)
    model.on_load_checkpoint(checkpoint.content)
    if model.is_done:
        taken = f"its agents have taken {min(model.num_steps):,} steps each; a larger --model.max_environment_steps goes on from it"
        solved = "its agents have solved their task; --model.stop_when_solved false goes on from it"
        all_solved = model.stop_when_solved and None not in model.solved
        raise NothingToDo(
            f"nothing left to do: {checkpoint.path} is at step {model.iteration}, and {solved if all_solved else taken}"
        )


# The run


def _configs(config: Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"class_path": "dvae.rl.PolicyGradient", "init_args": config.model.as_dict()},
        {"class_path": "dvae.rl.Rollouts", "init_args": config.data.as_dict()},
    )


def _train(parser: Parser, config: Namespace, name: str, checkpoint: Checkpoint | None, given: Sequence[str]) -> None:
    described = _configs(config) if checkpoint is None else _continued(checkpoint, config, given)
    if described[1]["init_args"]["env"] is None:
        raise InputError("data.env must be given, an id of gymnasium such as CartPole-v1: --data.env CartPole-v1")
    _require_end(described[0]["init_args"], config.trainer)
    data = instantiate(described[1], Rollouts, "data")
    model = instantiate(described[0], PolicyGradient, "model")
    if checkpoint is not None:
        _require_something_to_do(checkpoint, model, config.trainer.max_steps)
    start = 0 if checkpoint is None else checkpoint.content.get("global_step", 0)
    table = runs.run_table(config.runs, name)
    trainer: pl.Trainer | None = None
    try:
        trainer = _trainer(config.trainer, given, table)
        if trainer.logger is not None:
            table.experiment  # noqa: B018 - it makes the folder, and warns of one with files in it
            _save_config(parser, config, Path(table.log_dir))
        path = None if checkpoint is None else str(checkpoint.path)
        trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    except Exception as error:
        if not isinstance(error, Interrupted) and (trainer is None or trainer.global_step in (0, start)):
            runs.forget(Path(table.log_dir))
        raise
    trainer.save_checkpoint(Path(table.log_dir) / "checkpoints" / "last.ckpt", weights_only=False)
    _say_what_was_done(trainer, model, Path(table.log_dir))


def _require_end(model: Mapping[str, Any], trainer: Namespace) -> None:
    if trainer.max_steps < 0 and trainer.max_time is None and not (model["max_environment_steps"] or model["stop_when_solved"]):
        raise InputError("a run must have an end: give --model.max_environment_steps, --trainer.max_steps or --trainer.max_time")


def _trainer(config: Namespace, given: Sequence[str], table: runs.MetricsTable) -> pl.Trainer:
    every = config.log_every_n_steps
    if "trainer.log_every_n_steps" not in given and config.max_steps > 0:
        every = min(every, max(1, config.max_steps // 10))
    loggers = config.logger
    if runs.have_folders(loggers):
        runs.put_loggers_into(loggers, Path(table.log_dir))
    if not isinstance(loggers, (bool, type(None))):
        loggers = [instantiate(_plain(own), cast("type[Any]", Logger), "trainer.logger") for own in _as_list(loggers)]
    callbacks = [instantiate(_plain(own), pl.Callback, "trainer.callbacks") for own in _as_list(config.callbacks)]
    return pl.Trainer(
        accelerator="cpu",  # of networks of this size a GPU makes nothing faster
        devices=1,
        max_steps=config.max_steps,
        max_epochs=-1,
        max_time=config.max_time,
        log_every_n_steps=every,
        logger=runs.loggers_of(loggers, table),
        callbacks=_with_own(callbacks, every, config.enable_progress_bar is not False),
        enable_progress_bar=config.enable_progress_bar,
        enable_model_summary=False,
        default_root_dir=table.log_dir,
        plugins=[DurableCheckpointIO()],
    )


def _with_own(given: list[pl.Callback], every: int, progress: bool) -> list[pl.Callback]:
    """The given callbacks after those that every run has, but for the kinds that are given.

    The best checkpoint is looked for where the reward is logged, so that reward and weights belong together.
    """
    best = BestCheckpoint(
        filename="best", monitor="train/reward", mode="max", every_n_train_steps=every, enable_version_counter=False
    )
    own: list[pl.Callback] = [best, LastCheckpoint(_STEPS_PER_CHECKPOINT)]
    if progress and not any(isinstance(callback, pl.callbacks.ProgressBar) for callback in given):
        own.insert(0, ProgressBar(refresh_rate=10))
    return [*(new for new in own if not any(isinstance(callback, type(new)) for callback in given)), *given]


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Namespace) else value


def _save_config(parser: Parser, config: Namespace, folder: Path) -> None:
    with written_whole(folder / "config.yaml") as temporary:
        temporary.write_text(parser.dump(config, skip_validation=True))


def _say_what_was_done(trainer: pl.Trainer, model: PolicyGradient, folder: Path) -> None:
    for index in range(model.num_seeds):
        number, solved = len(model.episodes[index]), model.solved[index]
        text = f"agent {index}: mean reward {model.mean_reward(index):.2f} of its last {min(100, number)} episodes of {number:,}"
        if model.solved_at is not None:
            how = "not solved" if solved is None else f"solved after {solved[0]:,} episodes, {solved[1]:,} steps"
            text += f"; {how} (mean above {model.solved_at:g})"
        print(text)
    print(f"trained for {trainer.global_step:,} updates, {min(model.num_steps):,} environment steps; the run is in {folder}")
    best = getattr(trainer.checkpoint_callback, "best_model_path", "") or folder / "checkpoints" / "last.ckpt"
    data: Rollouts = trainer.datamodule  # type: ignore[attr-defined]
    known = all(map(is_trusted, class_paths([model.config, data.config]))) and not any(foreign(data.config["init_args"]))
    trust = "" if known else " --trust"
    print(f"evaluate it with: dvae rl evaluate {os.path.relpath(best)}{trust}")
