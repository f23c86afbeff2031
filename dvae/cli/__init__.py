"""The ``dvae`` command."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.progress import Progress

from dvae import data as _data  # noqa: F401  # makes the data modules' short names known to the parser
from dvae.config import check_yaml, class_paths, import_class
from dvae.errors import InputError, Interrupted, NonFiniteError
from dvae.estimators import CATALOGUE, GradientEstimator, facts
from dvae.files import written_whole
from dvae.lab.benchmark import ESTIMATORS, GROWTH, MODES, benchmark, growth, long_run
from dvae.lab.certify.certificate import Certificate, certify, num_reports
from dvae.lab.codes import encode
from dvae.lab.evaluate import Evaluation, Mean, evaluate, open_model, pooled
from dvae.lab.toy import toy, toy_estimator, write_csv
from dvae.lab.variance import applicable_estimators, compare_variance
from dvae.latents import Bernoulli
from dvae.report.benchmark import plot_growth, plot_times
from dvae.report.curves import plot_training, read_curve
from dvae.report.pictures import reconstruction_grid, sample_grid, save_picture
from dvae.report.tables import print_table
from dvae.report.toy import plot_curves, plot_surrogates
from dvae.report.variance import plot_variance
from dvae.resources import bundled_folder
from dvae.training.checkpoints import DurableCheckpointIO, find_checkpoint, previous_checkpoint, read_checkpoint
from dvae.training.module import DiscreteVAE
from dvae.training.record import extract
from dvae.training.sweep import replicate

__all__ = ["?", "main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed or not certified, 2 wrong usage, 128 + N stopped by signal N."""
    arguments = list(sys.argv[1:] if args is None else args)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_usage())
        return 0
    if command not in _TRAINER_COMMANDS and command not in _COMMANDS:
        print(
            f"dvae: error: unknown command {command!r}, expected one of {', '.join(_ALL_COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    # A class in the folder where the command runs is importable, as for a script there.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if command in _TRAINER_COMMANDS:
            return _train_command(arguments, args)
        parser_of, run, _ = _COMMANDS[command]
        parser = ArgumentParser(prog=f"dvae {command}", description=_COMMANDS[command][2])
        parser_of(parser)
        return run(parser.parse_args(arguments[1:]))
    except Interrupted as stop:
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return 0  # another status than 0 would make Lightning kill the first process
        print(f"dvae: {stop}; go on with: {_resume_command(arguments, 'last')}", file=sys.stderr)
        return 128 + stop.signum
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into an exit with status 1.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print("dvae: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        print(f"dvae: error: {told}", file=sys.stderr)
        return 1


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _told(error: BaseException | None) -> str | None:
    """The sentence meant for the user, which jsonargparse wraps in errors of its own; None for an error that is a bug."""
    while error is not None and not isinstance(error, (InputError, NonFiniteError, MisconfigurationException)):
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return f"cannot write {error.filename or 'the logs'}: {error.strerror}"
        error = error.__cause__ or error.__context__
    if isinstance(error, MisconfigurationException) and "manual optimization" in str(error):
        return f"{error} Use --model.gradient_clip_norm and --model.accumulate_grad_batches instead."
    return None if error is None else str(error)


_TRAINER_COMMANDS = {
    "fit": "train a model",
    "validate": "run a checkpoint's validation with Lightning",
    "test": "run a checkpoint's test with Lightning",
}


class _CLI(LightningCLI):
    """LightningCLI with the project's loggers: every run has a folder of its own, RUNS/NAME/version_K."""

    def __init__(self, arguments: list[str], *args: Any, **kwargs: Any) -> None:
        self.arguments = arguments
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
        parser.add_argument(
            "--threads",
            type=int,
            default=1,
            help="CPU threads of PyTorch, 0 for its own choice; at batch 24 more gain little and lose much beside other work",
        )
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="of matrix products in float32: high for TensorFloat-32 on a GPU; --trainer.precision bf16-mixed is lower still",
        )
        parser.add_argument("--name", type=str, default="run", help="name of the run; each gets a new RUNS/NAME/version_K")
        parser.add_argument(
            "--replicas",
            type=int,
            default=1,
            help="models trained in this one run, from seed_everything, seed_everything + 1, ... and data.seed, data.seed + 1, ...",
        )
        parser.add_argument(
            "--sweep",
            type=dict[str, list] | None,
            default=None,
            help="values of the model's arguments, each combination with all replicas: '{lr: [0.001, 0.0003], "
            "estimator.temperature: [0.5, 1]}'; learning rates, weight decay and what an estimator holds as a tensor",
        )

    def _parse_ckpt_path(self) -> None:
        # Lightning's own lets the checkpoint's arguments silently override the flags; here it only becomes a path that is checked.
        config = self.config[self.config.subcommand]
        if config.ckpt_path == "last":
            folder = Path(config.runs) / config.name
            found = sorted(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
            if not found:
                raise InputError(f"ckpt_path: there is no last.ckpt to resume from below {folder}")
            config.ckpt_path = str(found[-1])
        if config.ckpt_path is not None:
            _check_resumable(Path(config.ckpt_path), self.arguments)

    def before_instantiate_classes(self) -> None:
        assert self.subcommand is not None
        if threads := self.config[self.subcommand].threads:
            torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(self.config[self.subcommand].matmul_precision)
        # Weights that decay to nothing get so small that the CPU is slow with them: a tenth of a long run's time.
        torch.set_flush_denormal(True)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            config = self.config[self.subcommand]
            if config.replicas != 1 or config.sweep is not None:
                self.model = replicate(self.model, config.replicas, config.sweep)
        except Exception as error:
            # A class of the user's may have a bug, whose traceback is wanted; the library's own are handed what they do not take.
            config = self.config[self.subcommand].as_dict()
            if _told(error) or any(not path.startswith(_OWN) for path in class_paths(config)):
                raise
            raise InputError(f"config: cannot build what it describes ({type(error).__name__}: {_first_line(error)})") from error

    def after_fit(self) -> None:
        # The callbacks save at intervals; the last steps of a run count too.
        if self.trainer.logger is not None and self.trainer.checkpoint_callback is not None and self.trainer.log_dir is not None:
            self.trainer.save_checkpoint(Path(self.trainer.log_dir) / "checkpoints" / "last.ckpt", weights_only=False)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if self.subcommand != "fit":
            kwargs["logger"] = False
        elif config.trainer.logger is None:
            folder = Path(config.runs)
            try:
                (folder / config.name).mkdir(parents=True, exist_ok=True)
                if not os.access(folder / config.name, os.W_OK):
                    raise PermissionError(13, "Permission denied")
            except OSError as error:
                raise InputError(f"runs: cannot write {folder / config.name}: {error.strerror}") from None
            table = CSVLogger(folder, name=config.name)
            kwargs["logger"] = [table, TensorBoardLogger(folder, name=config.name, version=table.version)]
        plugins = self.config_init[self.subcommand].trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, DurableCheckpointIO()]
        # Lightning refuses a callback whose kind is switched off, rather than leaving it out.
        trainer = self.config_init[self.subcommand].trainer
        off = [
            kind
            for kind, enabled in ((ProgressBar, trainer.enable_progress_bar), (Checkpoint, trainer.enable_checkpointing))
            if enabled is False
        ]
        trainer.callbacks = [callback for callback in trainer.callbacks or [] if not isinstance(callback, tuple(off))]
        return super().instantiate_trainer(**kwargs)


_OWN = ("dvae.", "torch.", "pytorch_lightning.")


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _train_command(arguments: list[str], given: Sequence[str] | None) -> int:
    command = arguments[0]
    _quiet_lightning()
    base = bundled_folder("configs") / "base.yaml"
    cli = _CLI(
        arguments,
        DiscreteVAE,
        pl.LightningDataModule,
        args=None if given is None else arguments,  # LightningCLI warns where it is given what the shell gave
        subclass_mode_model=_names_model_class(arguments),
        subclass_mode_data=True,
        save_config_callback=SaveConfigCallback if command == "fit" else None,
        parser_kwargs={
            "description": "Train and test discrete variational autoencoders; all other commands: dvae --help.",
            **{name: {"default_config_files": [str(base)]} for name in _TRAINER_COMMANDS},
        },
        auto_configure_optimizers=False,
        run=True,
    )
    folder = cli.trainer.log_dir  # a broadcast, which every process must join
    if command == "fit" and cli.trainer.is_global_zero:
        checkpoint = getattr(cli.trainer.checkpoint_callback, "best_model_path", "") or getattr(
            cli.trainer.checkpoint_callback, "last_model_path", ""
        )
        elbo = cli.trainer.callback_metrics.get("train/elbo")
        reached = "" if elbo is None else f", training ELBO {elbo:.2f} nats"
        print(f"trained for {cli.trainer.global_step} updates{reached}; the run is in {folder}")
        if checkpoint:
            print(f"evaluate it with: dvae evaluate {os.path.relpath(checkpoint)}")
    return 0


def _check_resumable(path: Path, arguments: list[str]) -> None:
    try:
        read_checkpoint(path)
    except InputError as error:
        previous = previous_checkpoint(path)
        try:
            read_checkpoint(previous)
        except InputError:
            raise error from None
        raise InputError(
            f"{error}; the one before it is whole, go on from it with: {_resume_command(arguments, previous)}"
        ) from None


def _resume_command(arguments: Sequence[str], checkpoint: str | Path) -> str:
    """The command with another ``--ckpt_path``."""
    kept = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--ckpt_path":
            next(remaining, None)
        elif not argument.startswith("--ckpt_path="):
            kept.append(argument)
    return shlex.join(["dvae", *kept, "--ckpt_path", str(checkpoint)])


def _quiet_lightning() -> None:
    # Hints about workers and logging intervals are about other set-ups than this one.
    for message in (".*does not have many workers.*", ".*LeafSpec.*", ".*smaller than the logging interval.*"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)


def _names_model_class(arguments: Sequence[str]) -> bool:
    """Whether flags or config files choose a model class of the user's; otherwise every argument of DiscreteVAE is a flag.

    Every config file is checked on the way, before jsonargparse works through it.
    """
    found = False
    for position, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        value = value or (arguments[position + 1] if position + 1 < len(arguments) else "")
        found = found or flag in ("--model", "--model.class_path")
        if flag in ("--config", "-c") and Path(value).is_file():
            model = check_yaml(value).get("model")
            found = found or (isinstance(model, dict) and "class_path" in model)
    return found


def _model_arguments(parser: ArgumentParser, several: bool = False, split: bool = True) -> None:
    all_of_them = "; default: all of them" if several else ""
    text = "a checkpoint, or a folder of runs, of which the newest best.ckpt is taken"
    if several:
        parser.add_argument("checkpoint", type=str, nargs="+", help=f"{text}; several are compared in one table")
    else:
        parser.add_argument("checkpoint", type=str, help=text)
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="'bundled', or a file or folder; default: the checkpoint's own data",
    )
    parser.add_argument(
        "--replica", type=int | None, default=None, help="which model of a checkpoint of several, from 0" + all_of_them
    )
    if split:
        parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--device", type=str | None, default=None, help="cpu or cuda; default: the GPU if there is one")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import classes from outside dvae that the checkpoint names; it runs their code",
    )


def _evaluate_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser, several=True)
    parser.add_argument("--samples", type=int, default=100, help="samples for each example")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")


class _Evaluated(NamedTuple):
    """One row of a comparison; of a checkpoint of several models, ``replica`` says which one."""

    path: Path
    replica: int | None
    setting: dict[str, Any]
    result: Evaluation


def _evaluate(args: Namespace) -> int:
    rows: list[_Evaluated] = []
    with Progress(transient=True) as bar:
        for path in dict.fromkeys(find_checkpoint(given) for given in args.checkpoint):
            entries = read_checkpoint(path)["dvae"].get("replicas")
            several = isinstance(entries, list) and args.replica is None
            data = args.data
            if several:  # read once for all replicas
                _, data, _ = open_model(path, data, trust=args.trust, replica=0)
            for replica in range(len(entries)) if several else [args.replica]:
                name = path.name if replica is None else f"{path.name}, replica {replica}"
                task = bar.add_task(f"{name} on {args.split}", total=None)
                result = evaluate(
                    path,
                    data,
                    split=args.split,
                    num_samples=args.samples,
                    seed=args.seed,
                    device=_device(args.device),
                    trust=args.trust,
                    replica=replica,
                    progress=lambda done, total, task=task: bar.update(task, completed=done, total=total),  # type: ignore[misc]
                )
                rows.append(_Evaluated(path, replica, {} if replica is None else dict(entries[replica]["setting"]), result))
    if len(rows) == 1:
        row = rows[0]
        which = "" if row.replica is None else f", replica {row.replica}"
        print_table(
            f"{row.path}{which}: {row.result.num_examples} examples of {args.split}", ["", "mean", "std. error"], row.result.rows()
        )
    else:
        _print_comparison(rows, args.split)
    if args.json is not None:
        figures = [
            {
                "checkpoint": str(row.path),
                **({} if row.replica is None else {"replica": row.replica, "setting": row.setting}),
                "split": args.split,
                **row.result.as_dict(),
            }
            for row in rows
        ]
        _write_json(args.json, figures[0] if len(figures) == 1 else figures)
    return 0


def _print_comparison(rows: Sequence[_Evaluated], split: str) -> None:
    paths = list(dict.fromkeys(row.path for row in rows))
    names = dict(zip(paths, _labels(paths), strict=True)) if len(paths) > 1 else dict.fromkeys(paths, "")
    settings = list(dict.fromkeys(name for row in rows for name in row.setting))
    table = []
    for path in paths:
        groups: dict[str, list[_Evaluated]] = {}
        for row in (row for row in rows if row.path == path):
            groups.setdefault(str([row.setting.get(name) for name in settings if name != "seed"]), []).append(row)
            result = row.result
            table.append(
                (
                    names[path] if row.replica is None else f"{names[path]} {row.replica}".strip(),
                    *(str(row.setting.get(name, "")) for name in settings),
                    "" if result.train_elbo is None else f"{result.train_elbo:.2f}",
                    _with_error(result.elbo),
                    _with_error(result.importance_weighted_bound),
                    f"{result.log_variance_logits:.2f}",
                    f"{result.log_variance_encoder:.2f}",
                )
            )
        for group in (group for group in groups.values() if len(group) > 1):
            means = pooled([row.result for row in group])
            table.append(
                (
                    f"{names[path]} mean".strip(),
                    *("" if name == "seed" else str(group[0].setting.get(name, "")) for name in settings),
                    _with_error(means["train_elbo"]) if "train_elbo" in means else "",
                    _with_error(means["elbo"]),
                    _with_error(means["importance_weighted_bound"]),
                    f"{means['log_variance_logits'].mean:.2f}",
                    f"{means['log_variance_encoder'].mean:.2f}",
                )
            )
    samples = rows[0].result.num_samples
    title = f"ELBO in training and on {split}, importance-weighted bound, and log-variance of the gradient"
    print_table(title, ["", *settings, "train", split, f"bound ({samples})", "logits", "encoder"], table)
    if settings:
        print("standard errors: of one model over examples, of a mean between models")


def _with_error(mean: Mean) -> str:
    return f"{mean.mean:.2f}±{mean.standard_error:.2f}"


def _labels(paths: Sequence[Path]) -> list[str]:
    """The parts of the paths that differ."""
    parts = [list(path.parts) for path in paths]
    for end in (0, -1):
        while all(len(own) > 1 for own in parts) and len({own[end] for own in parts}) == 1:
            for own in parts:
                del own[end]
    return ["/".join(own) for own in parts]


def _sample_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("--out", type=str | None, default=None, help="folder of the pictures; default: beside the checkpoint")
    parser.add_argument("--images", type=int, default=64, help="images in each picture")


def _sample(args: Namespace) -> int:
    if args.images < 1:
        raise InputError(f"images must be at least 1, got {args.images}")
    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_model(path, args.data, device=_device(args.device), trust=args.trust, replica=args.replica)
    generator = torch.Generator(model.device).manual_seed(args.seed)
    folder = path.parent if args.out is None else Path(args.out)
    shape = getattr(module, "image_shape", None)
    examples = module.split(args.split)
    order = torch.randperm(examples.shape[0], generator=torch.Generator().manual_seed(args.seed))
    x = model.check_input(examples[order[: max(args.images // 2, 1)]].to(model.device))
    for name, picture in (
        ("samples", sample_grid(model, args.images, shape, generator)),
        ("reconstructions", reconstruction_grid(model, x, shape, generator)),
    ):
        print(f"{name}: {save_picture(picture, folder / f'{name}.png')}")
    return 0


def _extract_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="a checkpoint of several replicas, or a folder of runs")
    parser.add_argument("--replica", type=int, required=True, help="which, from 0")
    parser.add_argument("--out", type=str | None, default=None, help="file to write; default: beside it, NAME.replica_R.ckpt")


def _extract(args: Namespace) -> int:
    path = find_checkpoint(args.checkpoint)
    single = extract(read_checkpoint(path), args.replica)
    out = path.with_name(f"{path.stem}.replica_{args.replica}.ckpt") if args.out is None else Path(args.out)
    DurableCheckpointIO().save_checkpoint(single, out)
    print(f"replica {args.replica}: {out}")
    return 0


def _curves_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="+", help="folders of runs; of several below one, the newest")
    parser.add_argument("--levels", type=dict[str, float] | None, default=None, help="lines to draw beside: '{published: -111.2}'")
    parser.add_argument("--out", type=str, default="curves.png", help="the PNG file")


def _curves(args: Namespace) -> int:
    paths = [Path(run) for run in dict.fromkeys(args.runs)]
    curves = {name: read_curve(path) for name, path in zip(_labels(paths), paths, strict=True)}
    rows = [
        (name, str(curve.steps[-1] + 1), f"{curve.seconds[-1]:.0f}", f"{fmean(curve.elbo[-max(1, len(curve.elbo) // 300) :]):.2f}")
        for name, curve in curves.items()
    ]
    print_table("Training ELBO at the end, mean over a 300th of the run", ["", "steps", "seconds", "ELBO"], rows)
    print(f"wrote {plot_training(curves, args.out, args.levels)}")
    return 0


def _encode_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument(
        "--out", type=str, required=True, help="the .npz file to write: codes (binary ones bit-packed, with num_bits)"
    )


def _encode(args: Namespace) -> int:
    out = Path(args.out)
    if out.suffix != ".npz":
        raise InputError(f"out must be a .npz file, got {out}")
    model, module, _ = open_model(
        find_checkpoint(args.checkpoint), args.data, device=_device(args.device), trust=args.trust, replica=args.replica
    )
    codes = encode(model, module.split(args.split)).numpy()
    size = f"{codes.shape[0]} codes of {codes.shape[1]}"
    with written_whole(out) as temporary:
        if issubclass(model.latent.family, Bernoulli):
            np.savez_compressed(temporary, codes=np.packbits(codes, axis=1), num_bits=np.array(codes.shape[1]))
            print(f"{size} bits: {out} (numpy.unpackbits(codes, axis=1, count=num_bits))")
        else:
            np.savez_compressed(temporary, codes=codes)
            print(f"{size} numbers ({codes.dtype}): {out}")
    return 0


def _certify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "estimator", type=str, nargs="?", default=None, help="import path of the class, such as dvae.estimators.RELAX"
    )
    parser.add_argument("--all", action="store_true", help="every estimator of the library, in one table")
    parser.add_argument("--init_args", type=dict | None, default=None, help="its arguments, such as '{\"coupled\": false}'")
    parser.add_argument("--problems", type=int, default=8, help="random problems for each family of latents")
    parser.add_argument("--samples", type=int, default=200_000, help="draws for each problem")
    parser.add_argument("--latents", type=int, default=4, help="variables in each Bernoulli problem")
    parser.add_argument("--seed", type=int, default=0, help="seed of problems and draws")
    parser.add_argument("--json", type=str | None, default=None, help="also write the certificate to this file")


def _certify(args: Namespace) -> int:
    if args.all == (args.estimator is not None):
        raise InputError(f"either an estimator or --all must be given, got {'both' if args.all else 'neither'}")
    if args.all:
        return _certify_all(args)
    cls = import_class(args.estimator, GradientEstimator, "estimator")
    try:
        estimator = cls(**(args.init_args or {}))
    except TypeError as error:
        raise InputError(f"estimator: cannot make {args.estimator}: {error}") from None
    with Progress(transient=True) as bar:
        task = bar.add_task(f"certifying {cls.__name__}", total=num_reports(estimator, args.problems))
        certificate = certify(
            estimator,
            num_problems=args.problems,
            num_samples=args.samples,
            num_latents=args.latents,
            seed=args.seed,
            progress=lambda report: bar.advance(task),
        )
    rows = [
        (
            r.problem,
            f"{r.max_z:.2f}",
            f"{r.bias:.2%} ± {r.bias_error:.2%}",
            f"{r.variance:.3g}",
            _figure(r.reinforce_variance),
            _figure(r.optimal_baseline_variance),
        )
        for r in certificate.reports
    ]
    columns = ["problem", "largest |z|", "relative error", "variance", "REINFORCE's", "with best constant"]
    print_table(
        f"{args.estimator}: {args.samples} samples a problem, {certificate.measured_evaluations} evaluations of f",
        columns,
        rows,
    )
    print(certificate.verdict)
    if args.json is not None:
        _write_json(args.json, certificate.as_dict())
    return 0 if certificate.passed else 1


def _certify_all(args: Namespace) -> int:
    certificates: dict[str, Certificate] = {}
    with Progress(transient=True) as bar:
        total = sum(num_reports(make(), args.problems) for make in CATALOGUE.values())
        task = bar.add_task("certifying", total=total)
        for name, make in CATALOGUE.items():
            bar.update(task, description=f"certifying {name}")
            certificates[name] = certify(
                make(),
                num_problems=args.problems,
                num_samples=args.samples,
                num_latents=args.latents,
                seed=args.seed,
                progress=lambda report: bar.advance(task),
            )
            if args.json is not None:  # a long run's figures are not lost with it
                _write_json(args.json, {each: found.as_dict() for each, found in certificates.items()})
    rows = [
        (
            name,
            " ".join(family[0] for family in found.latents),
            f"{found.max_z:.2f}",
            "none" if found.passed else f"{found.bias[0]:.1%} ± {found.bias[1]:.1%}",
            "" if found.variance_ratio is None else f"{found.variance_ratio:.3f}",
            f"{found.measured_evaluations}",
            f"{found.microseconds / certificates['REINFORCE'].microseconds:.1f}",
        )
        for name, found in certificates.items()
    ]
    columns = ["estimator", "for", "|z|", "bias", "variance", "f", "time"]
    title = f"{args.problems + 2} problems for each family of latents, {args.samples} draws; variance and time in REINFORCE's"
    print_table(title, columns, rows)
    failed = {name: found.verdict for name, found in certificates.items() if not found.as_declared}
    print(f"{len(certificates) - len(failed)} of {len(certificates)} estimators are as they declare")
    for name, verdict in failed.items():
        print(f"{name}: {verdict}")
    return 1 if failed else 0


def _estimators_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="print the table as the README has it")


def _estimators(args: Namespace) -> int:
    columns = ["class", "what it is", "evaluations of f", "needs f'", "latents", "unbiased", "source"]
    classes = dict.fromkeys(type(make()) for make in CATALOGUE.values())
    rows = [facts(cls) for cls in classes]
    if args.markdown:
        lines = [columns, ["---"] * len(columns), *([f"`{row.name}`", *row[1:]] for row in rows)]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    else:
        title = "dvae.estimators, for latents: B Bernoulli, C Categorical, G Gaussian"
        short = [
            (row.name, row.evaluations, row.differentiates, " ".join(re.findall("[A-Z]", row.latents)), row.unbiased, row.source)
            for row in rows
        ]
        print_table(title, ["class", "f", "f'", "for", "unbiased", "source"], short)
    return 0


def _variance_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser, split=False)
    parser.add_argument(
        "--estimators",
        type=list[str] | None,
        default=None,
        help="names as in dvae certify --all, or import paths, as a list: '[LOO, RELAX]'; default: all for the model's latents",
    )
    parser.add_argument("--draws", type=int, default=1000, help="draws of the noise for each estimator")
    parser.add_argument("--phi_steps", type=int, default=2000, help="steps on phi at the fixed model, before it is measured")
    parser.add_argument("--phi_lr", type=float, default=0.001, help="learning rate of those steps")
    parser.add_argument("--batch_size", type=int, default=24, help="examples in the batch")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    parser.add_argument("--plot", type=str | None, default=None, help="also draw them into this .png file")


def _variance(args: Namespace) -> int:
    torch.set_num_threads(args.threads)
    if args.plot is not None and Path(args.plot).suffix != ".png":
        raise InputError(f"plot must be a .png file, got {args.plot}")
    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_model(path, args.data, device=_device(args.device), trust=args.trust, replica=args.replica)
    names = applicable_estimators(model.latent.family) if args.estimators is None else args.estimators
    with Progress(transient=True) as bar:
        task = bar.add_task("measuring", total=len(names))
        reports = compare_variance(
            model,
            module,
            names,
            num_draws=args.draws,
            phi_steps=args.phi_steps,
            phi_lr=args.phi_lr,
            batch_size=args.batch_size,
            seed=args.seed,
            progress=lambda name: bar.update(task, advance=1, description=f"measured {name}"),
        )
    rows = [
        (
            r.estimator if r.unbiased else f"{r.estimator} (biased)",
            f"{r.logits:.2f}±{r.logits_error:.2f}",
            f"{r.encoder:.2f}±{r.encoder_error:.2f}",
            f"{r.evaluations}",
            f"{r.encoder_per_evaluation:.2f}",
            f"{r.milliseconds:.1f}",
            f"{r.encoder_per_second:.2f}",
        )
        for r in sorted(reports, key=lambda report: report.encoder)
    ]
    title = f"{path}: log-variance of the gradient, {args.draws} draws, phi fitted for {args.phi_steps} steps"
    print_table(title, ["estimator", "logits", "encoder", "f", "enc. x f", "ms", "enc. x s"], rows)
    if args.json is not None:
        _write_json(args.json, {"checkpoint": str(path), "phi_steps": args.phi_steps, "draws": args.draws,
                                "reports": [report.as_dict() for report in reports]})  # fmt: skip
    if args.plot is not None:
        print(f"plot: {plot_variance(reports, args.plot)}")
    return 0


def _toy_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--estimators",
        type=list[str],
        default=["REINFORCE", "REBAR", "RELAX"],
        help="names as in dvae certify --all, or import paths, as a list: '[DisARM, my_estimators.Mine]'",
    )
    parser.add_argument("--targets", type=list[float], default=[0.45, 0.499], help="values of t, as a list")
    parser.add_argument("--seeds", type=int, default=10, help="independent runs of each")
    parser.add_argument("--iterations", type=int, default=10_000, help="updates of each run")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of Adam")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run")
    parser.add_argument("--out", type=str, default="toy", help="folder for toy.csv, curves.png and surrogates.png")


def _toy(args: Namespace) -> int:
    torch.set_num_threads(1)  # there is nothing to share between threads in so small a problem
    for name in args.estimators:
        toy_estimator(name)
    runs, fixed = [], []
    with Progress(transient=True) as bar:
        task = bar.add_task("running", total=len(args.targets) * len(args.estimators) * args.iterations)
        options: dict[str, Any] = {"num_seeds": args.seeds, "lr": args.lr, "seed": args.seed}
        for target in args.targets:
            for name in args.estimators:
                bar.update(task, description=f"{name} at t = {target:g}")
                advance = partial(bar.advance, task)
                runs.append(toy(name, target, num_iterations=args.iterations, progress=advance, **options))
                if runs[-1].surrogate is not None:
                    steps = max(1, args.iterations // 5)
                    fixed.append(toy(name, target, num_iterations=steps, batch_size=100, learn_logit=False, **options))
    rows = []
    for run in runs:
        loss, least = run.loss[-1].double(), min(run.target**2, (1 - run.target) ** 2)
        error = loss.std().item() / len(loss) ** 0.5 if len(loss) > 1 else float("nan")
        rows.append(
            (
                run.estimator,
                f"{run.target:g}",
                f"{loss.mean().item():.6f}",
                f"{error:.6f}",
                f"{least:.6f}",
                f"{run.log_variance[-1].mean().item():.2f}",
            )
        )
    title = f"Expected loss after {args.iterations} updates, mean over {args.seeds} seeds"
    print_table(title, ["estimator", "t", "loss", "std. error", "least", "log-variance"], rows)
    folder = Path(args.out)
    curves, surrogates = plot_curves(runs, folder / "curves.png"), plot_surrogates(fixed, folder / "surrogates.png")
    written = [write_csv(runs, folder / "toy.csv"), curves, *([surrogates] if surrogates else [])]
    print("wrote " + ", ".join(str(path) for path in written))
    return 0


def _benchmark_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--estimators",
        type=list[str],
        default=["REINFORCE", "LOO", "REBAR", "RELAX", "RELAX(coupled=False)"],
        help="which, as a list: '[REINFORCE, RELAX]'; [all] for the whole library",
    )
    parser.add_argument("--modes", type=list[str], default=list(MODES), help="which, out of eager, compiled and replicas")
    parser.add_argument("--batch_size", type=int, default=24, help="examples in a batch")
    parser.add_argument("--num_layers", type=int, default=1, help="stochastic layers")
    parser.add_argument("--replicas", type=int, default=8, help="models in one step of the mode replicas")
    parser.add_argument("--steps", type=int, default=300, help="timed steps in each repetition")
    parser.add_argument("--repetitions", type=int, default=5, help="how often each is timed; the median counts")
    parser.add_argument(
        "--long",
        type=int | None,
        default=None,
        help="instead, the rate along a compiled run of the first estimator, of so many steps",
    )
    parser.add_argument(
        "--grow", action="store_true", help="instead, how a compiled step grows with batch, D, K, layers and replicas"
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    parser.add_argument("--plot", type=str | None, default=None, help="also draw them, as a PNG file (not for --long)")


def _benchmark(args: Namespace) -> int:
    _quiet_lightning()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # as in dvae fit
    device = _device(args.device) or torch.device("cpu")
    names = list(ESTIMATORS) if args.estimators == ["all"] else args.estimators
    if args.long is not None:
        return _benchmark_long(names[0], device, args)
    if args.grow:
        return _benchmark_growth(names, device, args)
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=(args.repetitions + 1) * len(names) * len(args.modes))
        times = benchmark(
            names,
            args.modes,
            batch_size=args.batch_size,
            replicas=args.replicas,
            steps=args.steps,
            repetitions=args.repetitions,
            device=device,
            progress=lambda: bar.advance(task),
            num_layers=args.num_layers,
        )
    first = {t.mode: t for t in times if t.estimator == times[0].estimator}
    rows = [
        (
            t.estimator,
            t.mode if t.models == 1 else f"{t.models} {t.mode}",
            f"{t.bare:.2f}",
            f"{t.bare / first[t.mode].bare:.2f}",
            f"{t.flops / first[t.mode].flops:.2f}",
            f"{t.bare / t.floor:.1f}",
            f"{t.fit:.2f}",
            f"{t.fit_ratio:.2f}",
            f"{1e3 / t.fit:.0f}",
            f"{t.as_dict()['examples_per_second']:.0f}",
            f"{t.memory:.0f}",
        )
        for t in times
    ]
    columns = ["", "mode", "ms", "to first", "products", "to floor", "fit ms", "to bare", "steps/s", "images/s", "MiB"]
    where = f"{args.threads} thread(s)" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print_table(f"A step at batch {args.batch_size}, {args.num_layers} layer(s) of 200, {where}", columns, rows)
    found = {(t.estimator, t.mode): t.bare for t in times}
    ours, plain = found.get(("RELAX", "compiled")), found.get(("RELAX(coupled=False)", "eager"))
    if ours is not None and plain is not None:
        print(f"compiled, coupled RELAX is {plain / ours:.1f} times as fast as eager RELAX with independent noise")
    if args.plot is not None:
        print(f"wrote {plot_times(times, args.plot)}")
    if args.json is not None:
        _write_json(args.json, {"times": [t.as_dict() for t in times]})
    return 0


def _benchmark_long(name: str, device: torch.device, args: Namespace) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task(f"{args.long} steps", total=args.long // 1000)
        pace = long_run(
            name,
            args.long,
            batch_size=args.batch_size,
            device=device,
            progress=lambda: bar.advance(task),
            num_layers=args.num_layers,
        )
    rows = [
        (
            clock,
            f"{own[0]:.2f}",
            f"{own[-1]:.2f}",
            f"{own[-1] / own[0]:.2f}",
            f"{min(own):.2f}",
            f"{median(own):.2f}",
            f"{max(own):.2f}",
        )
        for clock, own in (("wall", pace.wall), ("CPU", pace.cpu))
    ]
    columns = ["ms a step", "first 1000", "last 1000", "ratio", "least", "median", "most"]
    print_table(f"{name}, compiled, {len(pace.wall)} thousand steps, {args.threads} thread(s)", columns, rows)
    if args.json is not None:
        _write_json(args.json, pace.as_dict())
    return 0


def _benchmark_growth(names: Sequence[str], device: torch.device, args: Namespace) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=len(names) * sum(len(values) for values in GROWTH.values()))
        times = growth(names, steps=args.steps, device=device, progress=lambda: bar.advance(task))
    for quantity, curves in times.items():
        rows = [(name, *(f"{points[v]:.2f}" if v in points else "" for v in GROWTH[quantity])) for name, points in curves.items()]
        print_table(f"ms a compiled step, by {quantity}", ["", *map(str, GROWTH[quantity])], rows)
    if args.plot is not None:
        print(f"wrote {plot_growth(times, args.plot)}")
    if args.json is not None:
        _write_json(args.json, times)
    return 0


_COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Callable[[Namespace], int], str]] = {
    "evaluate": (
        _evaluate_arguments,
        _evaluate,
        "ELBO, importance-weighted bound and more of a checkpoint, with error bars",
    ),
    "sample": (_sample_arguments, _sample, "PNG grids of samples from the prior and of reconstructions"),
    "curves": (_curves_arguments, _curves, "plot the training ELBO of runs against steps and seconds"),
    "extract": (_extract_arguments, _extract, "one model out of a checkpoint of several replicas, as an ordinary checkpoint"),
    "encode": (_encode_arguments, _encode, "codes of a data set, as .npz; binary ones bit-packed"),
    "benchmark": (
        _benchmark_arguments,
        _benchmark,
        "time a training step: eager, compiled, of several models; by itself and through Lightning",
    ),
    "estimators": (_estimators_arguments, _estimators, "list the library's gradient estimators"),
    "variance": (_variance_arguments, _variance, "compare the variance of estimators' gradients at a checkpoint"),
    "toy": (_toy_arguments, _toy, "rerun the RELAX paper's toy problem: loss, gradient variance and control variates"),
    "certify": (
        _certify_arguments,
        _certify,
        "measure an estimator's bias and variance against exact enumeration",
    ),
}

_ALL_COMMANDS = [*_TRAINER_COMMANDS, *_COMMANDS]


def _usage() -> str:
    descriptions = {**_TRAINER_COMMANDS, **{name: entry[2] for name, entry in _COMMANDS.items()}}
    lines = [f"  {name:<10} {description}" for name, description in descriptions.items()]
    return "\n".join(
        [
            "usage: dvae COMMAND ...",
            "",
            "Discrete variational autoencoders with pluggable, certified gradient estimators.",
            "",
            "commands:",
            *lines,
            "",
            "dvae COMMAND --help lists a command's arguments.",
        ]
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _device(name: str | None) -> torch.device | None:
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be cpu or cuda, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but there is no GPU")
    return device


def _write_json(path: str, content: Any) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())


if __name__ == "__main__":
    sys.exit(main())
