"""``dvae completion``: what a shell needs to complete the command's arguments."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from dvae.cli.arguments import Parser, flags_in
from dvae.errors import InputError

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Print the script; jsonargparse makes it with shtab."""
    parser = Parser(command, "Print a script that completes commands and flags: dvae completion bash > ~/.dvae && source ~/.dvae")
    parser.add_argument("shell", type=str, choices=("bash", "zsh", "tcsh"), help="bash, zsh or tcsh")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("shtab") is None:
        raise InputError("completion needs the package shtab, which is not installed: pip install shtab")
    print(_whole_parser().get_completion_script(f"shtab-{args.shell}"))
    return 0


def _whole_parser() -> ArgumentParser:
    """A parser with all commands; of each, the flags that its help page lists."""
    dvae = importlib.import_module("dvae.cli")  # by name: this file is one of its commands
    parser = ArgumentParser(prog="dvae")
    commands = parser.add_subcommands()
    for name, description in dvae.COMMANDS.items():
        own = _parser_of(dvae, [name])
        commands.add_subcommand(name, own, help=description)
        if name in dvae.GROUPS:
            below = own.add_subcommands()
            for lower, text in importlib.import_module(f"dvae.cli.{name}").COMMANDS.items():
                below.add_subcommand(lower, _parser_of(dvae, [name, lower]), help=text)
    return parser


def _parser_of(dvae: Any, command: Sequence[str]) -> ArgumentParser:
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        dvae.main([*command, "--help"])
    parser = ArgumentParser()
    for flag in flags_in(page.getvalue()):
        if flag not in ("--help", "--print_config"):
            parser.add_argument(flag)
    return parser
