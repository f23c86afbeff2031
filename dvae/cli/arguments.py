"""What the commands' parsers share."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from jsonargparse import ArgumentParser

from dvae.cli.errors import UsageError
from dvae.cli.help import Wide, readable
from dvae.errors import InputError, did_you_mean
from dvae.files import written_whole

if TYPE_CHECKING:
    import torch

__all__ = [
    "ENGINE_FLAGS",
    "Parser",
    "add_checkpoint",
    "add_common",
    "add_device",
    "add_engine",
    "add_trust",
    "device_of",
    "flags_in",
    "flags_of",
    "innermost",
    "names",
    "numbers",
    "parted",
    "quiet_lightning",
    "renamed",
    "whole_numbers",
    "with_configs",
    "write_json",
]


ENGINE_FLAGS = ("storage", "trials", "pruner", "metric", "heartbeat")
"""What is for ``--engine`` alone."""

# Arguments whose value is a config of a class, and the package of most such classes.
_CONFIGS = {"model.optimizer": "torch.optim", "model.lr_scheduler": "torch.optim.lr_scheduler"}


class Parser(ArgumentParser):
    """A command's parser: no abbreviations, help to read, and one sentence about what is wrong."""

    def __init__(self, command: str | None = None, description: str | None = None, **kwargs: Any) -> None:
        # jsonargparse makes parsers of this class without either, for the arguments of classes.
        if command is not None:
            kwargs["prog"] = f"dvae {command}"
        super().__init__(description=description, formatter_class=Wide, allow_abbrev=False, **kwargs)

    def format_help(self, *args: Any) -> str:
        """The help page, without markup."""
        return readable(super().format_help(*args))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(usage_sentence(message, flags_of(self), self.prog)) from ex


def flags_of(parser: ArgumentParser) -> list[str]:
    """The flags in a parser's help."""
    return flags_in(ArgumentParser.format_help(parser))


def flags_in(page: str) -> list[str]:
    """The flags that a help page lists."""
    found = (re.match(r"  (?:-\w(?: \S+)?, )?(--[\w.]+)", line) for line in page.splitlines())
    return sorted({flag[1] for flag in found if flag})


def usage_sentence(message: str, flags: Sequence[str], program: str) -> str:
    """What a parser found wrong, in one sentence; of an unknown flag, with the flag that was perhaps meant."""
    message = " ".join(message.split())
    unknown = re.match(r"unrecognized arguments: (.*)", message, flags=re.IGNORECASE)
    if unknown is None:
        return f"{message.rstrip('.')} ({program} --help lists what there is)"
    found = re.search(r"--[^\s=]+", unknown[1])
    name = found[0] if found else unknown[1].split()[0]
    hint = did_you_mean(name, flags) or f"; {program} --help lists what there is"
    return f"unknown argument {name}{hint}"


def innermost(message: str) -> str:
    """What is wrong in the innermost of the errors that jsonargparse has wrapped in each other."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    found = re.match(r'Parser key "([\w.]+)":', message)
    if found is None:
        return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"
    value = lines[-1].removeprefix("Given value: ")
    if nested := re.match(r"NestedArg\(key='([\w.]+)', val=(.*)\)$", value):
        key = f"{found[1]}.{nested[1]}"
        hint = f"it is a class of {_CONFIGS[key]} or an import path" if key in _CONFIGS else "a list is written '[a, b]'"
        return f"--{key} cannot be {nested[2]}; {hint}"
    if value.startswith("Namespace("):  # a class and all of its arguments: what is wrong with it says more
        wrapping = ("Parser key", "Does not", "Subtypes", "Errors", "Expected", "Given")
        reasons = [line for line in lines if not line.startswith(wrapping)]
        return f"--{found[1]}: {reasons[0] if reasons else value[:100]}"
    glued = re.search(r"\{.*:\S", value)
    blanks = "; in YAML a blank follows every colon, as in {beta: {0: 0, 5000: 1}}" if glued else ""
    return f"--{found[1]} cannot be {value[:200]}{blanks}"


def renamed(arguments: Sequence[str], new_names: Mapping[str, str]) -> list[str]:
    """The arguments with today's names for those of before, of each of which a line on stderr tells."""
    result = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        new = new_names.get(flag.removeprefix("--")) if flag.startswith("--") else None
        if new is not None:
            print(f"dvae: {flag} is called --{new} now; the old name is deprecated", file=sys.stderr)
            argument = f"--{new}{equals}{value}"
        result.append(argument)
    return result


def with_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments with an optimizer or a schedule that is given by its class, and what it is given, as one config."""
    for key, package in _CONFIGS.items():
        arguments = _with_config(arguments, key, package)
    return list(arguments)


def _with_config(arguments: Sequence[str], key: str, package: str) -> list[str]:
    path, place = "", 0
    init_args: dict[str, str] = {}
    rest: list[str] = []
    for tokens, name, value in _settings(arguments):
        if name == key and (found := _class_path(value, package)):
            path, place = found, len(rest)
        elif name.startswith(f"{key}.") and not name.endswith(".class_path"):
            init_args[name.removeprefix(f"{key}.").removeprefix("init_args.")] = value
        else:
            rest += tokens
    if not path:
        return list(arguments)
    given = f", init_args: {{{', '.join(f'{name}: {value}' for name, value in init_args.items())}}}" if init_args else ""
    return [*rest[:place], f"--{key}={{class_path: {path}{given}}}", *rest[place:]]


def _settings(arguments: Sequence[str]) -> Iterator[tuple[list[str], str, str]]:
    """The arguments of each flag, or one alone; the flag's name; its value."""
    left = list(arguments)
    while left:
        tokens = [left.pop(0)]
        flag, equals, value = tokens[0].partition("=")
        if not equals and flag.startswith("--") and left and not left[0].startswith("--"):
            tokens.append(value := left.pop(0))
        yield tokens, flag.removeprefix("--"), value


def _class_path(value: str, package: str) -> str | None:
    """An import path as it is; that of a class of the package's from its name."""
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value):
        return value
    return f"{package}.{value}" if value.isidentifier() and hasattr(importlib.import_module(package), value) else None


def names(text: str | list[str]) -> list[str]:
    """A list as a shell gives it: ``LOO``, ``LOO,RELAX(coupled=False)`` or ``[LOO, RELAX]``; no comma in parentheses separates."""
    if isinstance(text, list):  # jsonargparse hands in what it got from here
        return text
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    depth, parts = 0, [""]
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip().strip("'\"") for part in parts if part.strip()]


def numbers(text: str | list[float]) -> list[float]:
    """A list of numbers, as :func:`names`."""
    try:
        return text if isinstance(text, list) else [float(part) for part in names(text)]
    except ValueError:
        raise ValueError(f"expected numbers such as 0.45,0.499, got {text!r}") from None


def whole_numbers(text: str | list[int]) -> list[int]:
    """A list of whole numbers, as :func:`names`."""
    try:
        return text if isinstance(text, list) else [int(part) for part in names(text)]
    except ValueError:
        raise ValueError(f"expected whole numbers such as 10,100, got {text!r}") from None


def parted(arguments: Sequence[str], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own arguments, and those that go on to another command's parser.

    Arguments:
        arguments: as the shell gives them.
        flags: the command's own.
    """
    own: list[str] = []
    further: list[str] = []
    into = own
    for argument in arguments:
        if argument.startswith("--") or argument in ("-h", "-c"):
            into = own if argument.partition("=")[0] in (*flags, "-h", "--help") else further
        into.append(argument)
    return own, further


def add_checkpoint(parser: ArgumentParser, several: bool = False) -> None:
    """The checkpoint, and which of its models."""
    text = "a checkpoint, or a folder of runs, of which the newest best.ckpt is taken"
    if several:
        parser.add_argument("checkpoint", type=str, nargs="+", help=f"{text}; several are compared in one table")
    else:
        parser.add_argument("checkpoint", type=str, help=text)
    which = "which model of a checkpoint of several, from 0" + ("; default: all of them" if several else "")
    parser.add_argument("--replica", type=int | None, default=None, help=which)


def add_common(parser: ArgumentParser, split: bool = True, seed: bool = True) -> None:
    """The data, the device, and whether the file is trusted."""
    text = "'bundled', a file or a folder, or a class of data modules by its import path; default: the checkpoint's own data"
    parser.add_argument("--data", type=str | None, default=None, help=text)
    if split:
        parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    add_device(parser)
    add_trust(parser)


def add_device(parser: ArgumentParser) -> None:
    """Where to compute."""
    parser.add_argument("--device", type=str | None, default=None, help="cpu or cuda; default: the GPU if there is one")


def add_trust(parser: ArgumentParser) -> None:
    """Whether the file is trusted."""
    text = "import classes from outside dvae that the checkpoint names; it runs their code"
    parser.add_argument("--trust", action="store_true", help=text)


def device_of(name: str | None) -> torch.device | None:
    """The device of that name; an InputError says where there is none."""
    import torch

    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be cpu or cuda, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but there is no GPU")
    return device


def add_engine(parser: ArgumentParser) -> None:
    """The flags of an engine."""
    text = "optuna shares the trials of --sweep among workers: the same command, started on as many machines as there are"
    parser.add_argument("--engine", type=str | None, default=None, help=text)
    text = "its database of all workers: sqlite:///sweep.db"
    parser.add_argument("--storage", type=str | None, default=None, help=text)
    text = "of the engine, how many settings are tried where --sweep has ranges, such as '{lr: {log: [0.0001, 0.01]}}'"
    parser.add_argument("--trials", type=int | None, default=None, help=text)
    text = "of the engine, what ends trials early: none, median or halving; default: none"
    parser.add_argument("--pruner", type=str | None, default=None, help=text)
    text = "its measure, by default val/importance_weighted_bound"
    parser.add_argument("--metric", type=str | None, default=None, help=text)
    text = "of the engine, seconds between signs of life, by default 30"
    parser.add_argument("--heartbeat", type=int | None, default=None, help=text)


def quiet_lightning() -> None:
    """Leave out Lightning's hints about workers, logging intervals and so on, which are about other set-ups than this one."""
    hints = (
        ".*no pre-optimization state.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*LightningCLI's args.*",
        ".*TensorFloat32 tensor cores.*",  # --matmul_precision asks for them
    )
    for message in hints:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.formatwarning = _in_one_line


_formatwarning = warnings.formatwarning


def _in_one_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of this package as a sentence, without the place in the source that it comes from."""
    if f"{os.sep}dvae{os.sep}" in filename:
        return f"dvae: warning: {message}\n"
    return _formatwarning(message, category, filename, lineno, line)


def write_json(path: str, content: Any) -> None:
    """Write figures to a file, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
