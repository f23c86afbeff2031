"""``dvae fit``, ``validate``, ``test`` and ``predict``: Lightning's Trainer behind a command line."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.model_helpers import is_overridden

from dvae.cli import configs, hints, resume, runs
from dvae.cli.arguments import ENGINE_FLAGS, add_engine, names, quiet_lightning, with_configs
from dvae.cli.data import build_data, fill_in_sizes, flags_of_source
from dvae.cli.encode import save_codes
from dvae.cli.errors import UsageError, first_line, told
from dvae.cli.parser import DEFAULTS, Parser
from dvae.config import MOVED, class_paths, import_class, is_trusted, require_trust
from dvae.data import DataModule
from dvae.data.batches import loader_of
from dvae.errors import InputError, Interrupted
from dvae.networks.convolutional import is_convolutional
from dvae.training import record
from dvae.training.callbacks import Pictures
from dvae.training.checkpoints import Checkpoint as Saved
from dvae.training.checkpoints import DurableCheckpointIO, find_checkpoint, init_from
from dvae.training.run import Training
from dvae.training.single import Trainable
from dvae.training.sweep import Replicas, replicate

__all__ = ["is_first_process", "main", "rewritten", "takes"]

_DESCRIPTIONS = {
    "fit": "Train a model. Settings come from the package's base.yaml, then --config files in their order, then flags.",
    "validate": "Measure a checkpoint on its validation set with Lightning; the model is the checkpoint's.",
    "test": "Measure a checkpoint on its test set with Lightning; the model is the checkpoint's.",
    "predict": "Write the codes of the test set with Lightning; the model is the checkpoint's.",
}

_OWN = ("dvae.", "torch.", "pytorch_lightning.")


def main(command: str, arguments: Sequence[str], callbacks: Sequence[pl.Callback] = ()) -> int:
    """Build a trainer, a model and data from the arguments, and run the command, with further callbacks beside those given."""
    quiet_lightning()
    flags = rewritten(arguments)
    keys = {key for key, _ in configs.given(flags)}
    _require_no_engine(dict(configs.given(flags)))
    if (
        "model.estimator" not in keys
        and "model.quantizer" not in keys
        and "ckpt_path" not in keys
        and any(key.startswith("model.estimator.") for key in keys)
    ):
        flags = ["--model.estimator", "dvae.estimators.RELAX", *flags]  # arguments alone are those of the default
    cli = _CLI(
        command,
        arguments,
        flags,
        callbacks,
        Trainable,
        pl.LightningDataModule,
        args=[command, *flags],
        parser_class=Parser,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveConfigCallback if command == "fit" else None,
        parser_kwargs={
            "prog": "dvae",
            "parser_mode": configs.MODE,
            command: {
                "default_config_files": [str(runs.base_config())],
                "parser_mode": configs.MODE,
                "description": _DESCRIPTIONS[command],
            },
        },
        auto_configure_optimizers=False,
        run=True,
    )
    folder = cli.trainer.log_dir  # a broadcast, which every process must join
    if command == "fit" and cli.trainer.is_global_zero:
        config = cli.config[command]
        _say_what_was_done(cli.trainer, folder, [config.model.as_dict(), config.data.as_dict()])
    return 0


def _require_no_engine(given: Mapping[str, Any]) -> None:
    """An InputError where something of an engine's is given to a single run."""
    if given.get("engine") not in (None, "null"):
        raise InputError("engine must be a flag of dvae fit, and in no config: --engine optuna")
    for name in ENGINE_FLAGS:
        if given.get(name) not in (None, "null"):
            raise InputError(f"{name} is for sweeps that workers share, got {given[name]} without --engine optuna")


def _say_what_was_done(trainer: pl.Trainer, folder: str | None, config: Any) -> None:
    callback = trainer.checkpoint_callback
    checkpoint = getattr(callback, "best_model_path", "") or getattr(callback, "last_model_path", "")
    logged = trainer.callback_metrics
    figures = ((name, logged.get(key)) for name, key in _figures_of(trainer.lightning_module))
    reached = next((f", {name} {value:.2f} nats" for name, value in figures if value is not None), "")
    print(f"trained for {trainer.global_step} updates{reached}; the run is in {folder}")
    module = trainer.lightning_module
    if isinstance(module, Training) and not module.changes_theta(trainer.global_step - 1):
        print("the model itself is as it was: so far its control variate alone was trained (--model.phi_warmup_steps)")
    if checkpoint:
        data = trainer.datamodule  # type: ignore[attr-defined]
        without_test = isinstance(data, DataModule) and "test" not in data.split_names
        flags = " --trust" if not all(map(is_trusted, class_paths(config))) else ""
        flags += f" --split {data.split_names[-1]}" if without_test else ""
        print(f"evaluate it with: dvae evaluate {os.path.relpath(checkpoint)}{flags}")


def _figures_of(module: pl.LightningModule) -> list[tuple[str, str]]:
    """What is said of a run, and as what it is logged."""
    models = module.models if isinstance(module, Training) else []
    if any(getattr(getattr(model, "prior", None), "log_constant", None) is not None for model in models):
        return [("validation ELBO", "val/elbo")]  # log Z is not in that of training
    return [("training ELBO", "train/elbo"), ("training reconstruction", "train/reconstruction")]


def _is_class(path: str) -> bool:
    """Whether there is such a class; where not, the parser will find so."""
    try:
        import_class(path, object, "class")
    except InputError:
        return False
    return True


def takes(path: str, argument: str) -> bool:
    """Whether a class has an argument; not so where there is no such class, which the parser will find."""
    try:
        parameters = inspect.signature(import_class(path, object, "class")).parameters
    except InputError:
        return False
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


class _CLI(LightningCLI):
    """LightningCLI for one command, with the project's loggers, callbacks and checkpoints.

    Every run has a folder of its own, RUNS/NAME/version_K.
    """

    def __init__(
        self,
        command: str,
        given: Sequence[str],
        arguments: list[str],
        callbacks: Sequence[pl.Callback],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.command, self.arguments, self.callbacks = command, arguments, callbacks
        # In one line, for it goes into a comment.
        self.command_line = " ".join(shlex.join(["dvae", command, *given]).split())
        self.pairs = configs.given(arguments)
        self.given = [key for key, _ in self.pairs]
        Parser.settings = self.pairs
        self.checkpoint: Saved | None = None
        self.table: runs.MetricsTable | None = None
        self._data: pl.LightningDataModule | None = None
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that was asked for: to build the others' parsers takes time."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        header = [f"pytorch_lightning=={version('pytorch_lightning')}"]
        if "print_config" not in self.given:  # what is printed is no run's
            header.append(self.command_line)
        parser = self.parser_class(dump_header=header, **kwargs)
        text = (
            "a YAML file, given once or more; l1, relax and so on name the package's own, of configs/model (l1, l2, nl1, "
            "categorical, conv, photos, spatial, spatial_fsq, words), configs/estimator and configs/prior: --config l1 --config "
            "relax"
        )
        parser.add_argument("-c", "--config", action=configs.ConfigFile, help=text)
        return parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        text = "seed of the initial weights and, where model.seed is not given, of the noise; true for a random one"
        parser.add_argument("--seed_everything", type=bool | int, default=self.seed_everything_default, help=text)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Defaults of the class that is asked for: a class that takes the place of another in a config keeps the other's arguments,
        # its defaults too, where it has arguments of the same names.
        asked = dict(self.pairs)
        for key, (default, arguments) in DEFAULTS.items():
            value = asked.get(key)
            path = value if isinstance(value, str) and "." in value and _is_class(value) else default
            init_args = {name: argument for name, argument in arguments.items() if takes(path, name)}
            parser.set_defaults({key: {"class_path": path, "init_args": init_args}})
        parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
        text = "name of the run, by default of its configs, such as l1_relax; each gets a new RUNS/NAME/version_K"
        parser.add_argument("--name", type=str | None, default=None, help=text)
        text = "CPU threads, 0 for PyTorch's choice: that of convolutions, else 1"
        parser.add_argument("--threads", type=int | None, default=None, help=text)
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="of matrix products in float32: high for TensorFloat-32 on a GPU; --trainer.precision bf16-mixed is lower still",
        )
        text = "models trained in this one run, from seed_everything, seed_everything + 1, ... and data.seed, data.seed + 1, ..."
        parser.add_argument("--replicas", type=int, default=1, help=text)
        text = (
            "values of the model's arguments, each combination with all replicas: '{lr: [0.001, 0.0003], estimator.temperature: "
            "[0.5, 1]}'; learning rates, weight decay and what an estimator holds as a tensor"
        )
        parser.add_argument("--sweep", type=dict[str, list[Any]] | None, default=None, help=text)
        text = (
            "numbers that change along the run, by updates: '{beta: {0: 0, 2000: 1}, lr: {points: {0: 0.001, 9000: 0.0001}, "
            "interpolation: exponential}}'; beta, free_bits, kl_balance, lr, phi_lr, estimator.temperature; linear, cosine, "
            "exponential or step; see dvae.training.callbacks.Schedule"
        )
        parser.add_argument("--schedule", type=dict[str, Any] | None, default=None, help=text)
        text = (
            "a checkpoint, or a folder of runs, from whose weights the model starts, and every replica: tensors of the same name "
            "and shape; optimizer, updates and seed start anew"
        )
        parser.add_argument("--init_from", type=str | None, default=None, help=text)
        text = "which model's, of a checkpoint of several"
        parser.add_argument("--init_from_replica", type=int | None, default=None, help=text)
        text = "callbacks to leave out, of those that every run has: Pictures,VarianceMonitor"
        parser.add_argument("--without", type=list[str], default=[], help=text)
        if self.command == "fit":
            add_engine(parser)
        text = "import classes from outside dvae that the checkpoint names; it runs their code"
        parser.add_argument("--trust", type=bool, nargs="?", const=True, default=False, help=text)
        if self.command == "predict":
            text = "the .npz file to write: codes (binary ones bit-packed, with num_bits)"
            parser.add_argument("--out", type=str, default="codes.npz", help=text)

    def _parse_ckpt_path(self) -> None:
        # In Lightning's own the checkpoint's arguments silently override the flags.
        config = self.config[self.command]
        if config.name is None:
            config.name = configs.run_name(self.arguments)
        if config.ckpt_path is None:
            if self.command != "fit":
                raise InputError(f"ckpt_path must be given: dvae {self.command} measures a checkpoint (--ckpt_path runs/NAME)")
            return
        if config.init_from is not None:
            raise InputError(
                f"init_from and ckpt_path exclude each other, got {config.init_from} and {config.ckpt_path}: leave init_from out, "
                "for a run that goes on has its own weights"
            )
        path = self._checkpoint_path(config)
        config.ckpt_path = str(path)
        self.checkpoint = resume.open_resumable(path, lambda other: resume.resume_command([self.command, *self.arguments], other))
        self.checkpoint.require_autoencoder()
        fits = self.command == "fit"
        free = resume.FREE_IN_TRAINING if fits else resume.FREE_IN_MEASURING
        model = resume.model_config(self.checkpoint, config.model.as_dict(), self.given, free, config.trust)
        if fits:
            resume.require_optimizer(self.checkpoint)
            resume.require_something_to_do(self.checkpoint, config.trainer.max_steps)
        known: dict[str, Any] = {"model": configs.current(model)}
        data = record.data_of(self.checkpoint.content)
        if not fits and isinstance(data, dict) and not any(key.split(".")[0] == "data" for key in self.given):
            require_trust(f"checkpoint {self.checkpoint.path}", class_paths(data), config.trust)
            known["data"] = configs.current(data)
        self.config = self.parser.parse_object({self.command: known}, self.config)

    def _checkpoint_path(self, config: Any) -> Path:
        if self.command != "fit":
            return find_checkpoint(config.ckpt_path)
        if config.ckpt_path != "last":
            path = Path(config.ckpt_path)
            return path if not path.is_dir() else runs.newest(path)
        return runs.newest(Path(config.runs) / config.name)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        if str(config.trainer.precision) in ("bf16-true", "16-true"):
            raise InputError(
                f"trainer.precision must keep parameters in float32 or float64, got {config.trainer.precision}: sums over pixels "
                "would lose the ELBO's digits; bf16-mixed computes products alone in fewer bits"
            )
        torch.set_float32_matmul_precision(config.matmul_precision)
        # Weights that decay to nothing get so small that the CPU is slow with them: a tenth of a long run's time.
        torch.set_flush_denormal(True)

    def instantiate_classes(self) -> None:
        config = self.config[self.command]
        try:
            if self.command == "fit" and runs.have_folders(config.trainer.logger):
                self.table = runs.run_table(config.runs, config.name)
                runs.put_loggers_into(config.trainer.logger, Path(self.table.log_dir))
            self._instantiate_with_data()
            threads = (0 if is_convolutional(self.model) else 1) if config.threads is None else config.threads
            if threads:
                torch.set_num_threads(threads)
            several = resume.replicas_of(self.checkpoint) if self.checkpoint is not None and self.command != "fit" else None
            if several is not None:
                self.model = several
            elif config.replicas != 1 or config.sweep is not None:
                self.model = replicate(self.model, config.replicas, config.sweep)
        except Exception as error:
            self._forget_run()
            sentence = hints.explain(self.pairs)
            if sentence is not None and not isinstance(error, InputError):
                raise UsageError(sentence) from error
            if sentence is not None and "class_path" in str(error):
                raise UsageError(sentence) from error
            # A class of the user's may have a bug, whose traceback is wanted; the library's own are handed what they do not take.
            if told(error) or any(not path.startswith(_OWN) for path in class_paths(config.as_dict())):
                raise
            raise InputError(f"config: cannot build what it describes ({type(error).__name__}: {first_line(error)})") from error
        if self.command == "fit":
            self._start_weights(config)

    def _start_weights(self, config: Any) -> None:
        if config.init_from is None:
            if config.init_from_replica is not None:
                raise InputError(
                    f"init_from_replica needs init_from, a checkpoint of several models, got {config.init_from_replica}"
                )
            return
        path = find_checkpoint(config.init_from)
        taken = init_from(self.model, path, replica=config.init_from_replica)
        if is_first_process():
            print(f"{'every replica' if isinstance(self.model, Replicas) else 'the model'} starts from {path}: {taken}")

    def _instantiate_with_data(self) -> None:
        """The data first: a model that is not told its size takes theirs."""
        config = self.config[self.command]
        described = config.data
        self._data = build_data(described)
        if self.checkpoint is None:
            fill_in_sizes(config.model, self._data)
        elif isinstance(self._data, DataModule):
            resume.require_size(self.checkpoint, self._data.num_pixels)
        # jsonargparse would read the data once more.
        config.data = Namespace(class_path="pytorch_lightning.LightningDataModule")  # type: ignore[no-untyped-call]
        super().instantiate_classes()
        config.data = described

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config, trainer = self.config[self.command], self.config_init[self.command].trainer
        self.datamodule = self._data
        off = runs.switched_off(trainer)
        if self.command != "fit":
            # Nothing is trained that a checkpoint or a picture would be of.
            kwargs |= {"logger": False, "enable_checkpointing": False}
            off = [*off, Checkpoint, Pictures]
        else:
            self.table = self.table or runs.run_table(config.runs, config.name)
            kwargs["logger"] = runs.loggers_of(trainer.logger, self.table)
            if kwargs["logger"] is False:
                kwargs["default_root_dir"] = self.table.log_dir
            changed = runs.intervals(trainer, set(self.given), self.datamodule)
            kwargs |= changed
            for name, value in changed.items():
                config.trainer[name] = value
        plugins = trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, DurableCheckpointIO()]
        callbacks = trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if self.command == "fit":
            callbacks = [*callbacks, *runs.schedules_of(config.schedule or {}), *self.callbacks]
        trainer.callbacks = runs.callbacks_of(callbacks, config.without, off)
        return super().instantiate_trainer(**kwargs)

    def fit(self, **kwargs: Any) -> None:
        """Train; a run that did not come to its first update leaves no folder."""
        step = 0 if self.checkpoint is None else self.checkpoint.content.get("global_step", 0)
        try:
            self.trainer.fit(**kwargs)
        except Exception as error:
            if self.trainer.global_step in (0, step) and not isinstance(error, Interrupted):
                self._forget_run()
            raise

    def _forget_run(self) -> None:
        """Remove the folder that this run has made for itself."""
        if self.table is not None and is_first_process():
            runs.forget(Path(self.table.log_dir))

    def after_fit(self) -> None:
        # The callbacks save at intervals; the last steps of a run count too.
        trainer = self.trainer
        if trainer.checkpoint_callback is not None and trainer.log_dir is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(Path(trainer.log_dir) / "checkpoints" / "last.ckpt", weights_only=False)

    def predict(self, **kwargs: Any) -> None:
        """Write what the trainer's ``predict`` gives to one file."""
        out = self.config[self.command].out
        if Path(out).suffix != ".npz":
            raise InputError(f"out must be a .npz file, got {out}")
        kwargs["return_predictions"] = True
        if not is_overridden("predict_dataloader", self.datamodule, pl.LightningDataModule):
            kwargs |= {"dataloaders": loader_of(self.datamodule, "test"), "datamodule": None}
        batches = self.trainer.predict(**kwargs)
        codes = torch.cat([torch.as_tensor(batch).cpu() for batch in batches or []]).numpy()
        print(save_codes(codes, out, binary=self.model.latent.family.binary))


def is_first_process() -> bool:
    """Whether this is the process that speaks, of several in one run."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def rewritten(arguments: Sequence[str]) -> list[str]:
    """The arguments with classes where they are today, lists in brackets, data as the module that reads them, optimizers whole."""
    result: list[str] = []
    previous = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=") if argument.startswith("--") else (previous, "", argument)
        name = flag.removesuffix("+")
        new = MOVED.get(value, value)
        more: list[str] = []
        if name == "--without" and value:
            new = f"[{', '.join(names(value))}]"
        if name == "--data" and value:
            new, more = flags_of_source(value)
        result += [f"{flag}{equals}{new}" if argument.startswith("--") else new, *more]
        previous = argument if argument.startswith("--") and not equals else ""
    return with_configs(result)
