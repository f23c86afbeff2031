"""The ``dvae`` command: one file for each of its commands, imported when it is asked for.

The one idea: shell and Python use the same names. A command's flags are the arguments of the library function behind it, and its
help is that function's docstring; `dvae help COMMAND` lists them, and `dvae completion` completes them in bash, zsh or tcsh.

`dvae fit` is a LightningCLI. It reads `configs/base.yaml`, then `--config` files in their order, then flags. A model and an
estimator are files of their own, `--config configs/model/l1.yaml --config configs/estimator/relax.yaml`, or for short `--config l1
--config relax`; a prior that is not factorial is a third, `--config autoregressive`.

A wrong input ends in one sentence and a non-zero exit status, and leaves no half-written file.
"""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

__all__ = ["COMMANDS", "GROUPS", "main", "run_group", "usage"]

COMMANDS = {
    "fit": "train a model",
    "validate": "measure a checkpoint on its validation set, with Lightning",
    "test": "measure a checkpoint on its test set, with Lightning",
    "predict": "the codes of a data set, with Lightning: on several devices, by batches",
    "fit-prior": "fit another prior on a checkpoint's codes, its networks as they are",
    "compare": "train models with several estimators and seeds, evaluate them, one table and one plot",
    "evaluate": "ELBO, importance-weighted bound and more of a checkpoint, with error bars",
    "sample": "PNG grids of samples from the prior and of reconstructions",
    "curves": "plot the training ELBO of runs against steps and seconds",
    "extract": "one model out of a checkpoint of several replicas, as an ordinary checkpoint",
    "export": "a model as a folder to share, or its encoder and decoder as ONNX or PyTorch programs",
    "encode": "codes of a data set, as .npz; binary ones bit-packed",
    "decode": "images of the codes or tokens in a file, as .npz or as PNG",
    "traverse": "pictures of what single latents do, and of the way from one image's code to another's",
    "report": "one page of HTML that shows runs: curves, figures, pictures, variances, configurations",
    "retrieve": "search by codes: neighbours, and figures against simpler codes of as many bits",
    "tokenize": "tokens of images, one integer at each place of the code's grid, as .npz",
    "benchmark": "time a training step: eager, compiled, of several models; by itself and through Lightning",
    "estimators": "list the library's gradient estimators",
    "variance": "compare the variance of estimators' gradients at a checkpoint",
    "toy": "rerun the RELAX paper's toy problem, or that of orders: loss, gradient variance, control variates",
    "jigsaw": "digits in shuffled tiles, put together by a network that infers their order",
    "certify": "measure an estimator's bias and variance against exact enumeration",
    "paper": "the RELAX paper's tables: published figures beside ours, and the runs behind them",
    "rl": "policies: train them with the same estimators, evaluate and compare them",
    "completion": "print a script that completes this command's arguments in bash, zsh or tcsh",
}
"""What each command does, in one line."""

GROUPS = ("paper", "rl")
"""Commands that have commands of their own."""

# The same command goes on with what was stopped.
_GO_ON = ("compare", "paper", "tokenize")
_IN_FIT = ("validate", "test", "predict")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed or not certified, 2 wrong usage, 128 + N stopped by signal N."""
    arguments = list(sys.argv[1:] if args is None else args)
    command, *rest = arguments or ["--help"]
    if command == "help" and rest:
        command, rest = rest[0], [*rest[1:], "--help"]
    if command in ("-h", "--help", "help"):
        about = "Discrete variational autoencoders with pluggable, certified gradient estimators."
        more = "dvae help COMMAND lists a command's arguments, dvae --version prints the version."
        print(usage("dvae", about, COMMANDS, more))
        return 0
    if command == "--version":
        from dvae import __version__

        print(f"dvae {__version__}")
        return 0
    try:
        status = _run(command, rest)
        sys.stdout.flush()  # at exit, a closed pipe could not be told from a failure
        return status
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return 1
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns Ctrl-C into an exit with status 1.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        hint = "; the same command goes on" if _goes_on(command, rest) else ""
        print(f"dvae: stopped by SIGINT{hint}", file=sys.stderr)
        return 128 + signal.SIGINT


def _reader_has_gone() -> bool:
    """Whether nobody reads what is printed any more, as behind ``| head``; if so, the rest goes nowhere, at exit too."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _has_engine(arguments: Sequence[str]) -> bool:
    """Whether a sweep is one that workers share."""
    helps = "-h" in arguments or "--help" in arguments
    return not helps and any(argument.partition("=")[0] == "--engine" for argument in arguments)


def _goes_on(command: str, arguments: Sequence[str]) -> bool:
    """Whether the same command goes on where it was stopped."""
    return command in _GO_ON or (command == "fit" and _has_engine(arguments))


def _run(command: str, arguments: list[str]) -> int:
    from dvae.cli.errors import NothingToDo, UsageError, told
    from dvae.errors import Interrupted, did_you_mean

    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or f"; expected one of {', '.join(COMMANDS)}"
        print(f"dvae: error: unknown command {command!r}{hint}", file=sys.stderr)
        return 2
    # A class in the folder where the command runs is importable, as for a script there.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    shared = command == "fit" and _has_engine(arguments)
    try:
        name = "fit" if command in _IN_FIT else "engine" if shared else command.replace("-", "_")
        module = importlib.import_module(f"dvae.cli.{name}")
        return module.main(command, arguments)
    except Interrupted as stop:
        from dvae.cli.fit import is_first_process
        from dvae.cli.resume import resume_command

        if not is_first_process():
            return 0  # another status than 0 would make Lightning kill the first process
        # A comparison and a study find their unfinished runs themselves.
        same = _goes_on(command, arguments)
        again = shlex.join(["dvae", command, *arguments]) if same else resume_command([command, *arguments], "last")
        print(f"dvae: {stop}; go on with: {again}", file=sys.stderr)
        return 128 + stop.signum
    except NothingToDo as reason:
        print(f"dvae: {reason}")
        return 0
    except UsageError as error:
        print(f"dvae: error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        sentence = told(error)
        if sentence is None:
            raise
        print(f"dvae: error: {sentence}", file=sys.stderr)
        return 1


def run_group(command: str, arguments: Sequence[str], commands: Mapping[str, str], about: str) -> int:
    """Run one of the commands of a group, each of which is a file of its own in the group's folder.

    Raises:
        UsageError: there is no such command.
    """
    from dvae.cli.errors import UsageError
    from dvae.errors import did_you_mean

    which, *rest = arguments or ["--help"]
    if which in ("-h", "--help", "help") and not rest:
        print(usage(f"dvae {command}", about, commands, f"dvae help {command} COMMAND lists a command's arguments."))
        raise SystemExit(0)
    if which in ("-h", "--help", "help"):
        which, rest = rest[0], ["--help"]
    if which not in commands:
        hint = did_you_mean(which, commands) or f"; expected one of {', '.join(commands)}"
        raise UsageError(f"unknown command '{command} {which}'{hint}")
    return importlib.import_module(f"dvae.cli.{command}.{which}").main(f"{command} {which}", rest)


def usage(program: str, about: str, commands: Mapping[str, str], more: str) -> str:
    """A page that lists what a program's commands do."""
    listed = [f"  {name:<10} {description}" for name, description in commands.items()]
    return "\n".join([f"usage: {program} COMMAND ...", "", about, "", "commands:", *listed, "", more])
