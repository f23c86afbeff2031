"""Help to read: one entry for each flag, without markup, types or lists of classes."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from jsonargparse import DefaultHelpFormatter

__all__ = ["Wide", "plain", "readable"]

_INDENT = 34

# Whose subclasses are named where one of them is wanted: of torch's and Lightning's there are hundreds.
_SHELVES = ("dvae.estimators.", "dvae.networks.", "dvae.priors.", "dvae.likelihoods.", "dvae.training.callbacks.", "dvae.data.")


class Wide(DefaultHelpFormatter):
    """jsonargparse's formatter with every flag on one line, which :func:`readable` breaks anew."""

    def __init__(self, prog: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=10**4, width=10**6)  # type: ignore[no-untyped-call]


def readable(text: str, brief: str = "", replaced: Mapping[str, str] | None = None) -> str:
    """A help page made with :class:`Wide`, broken to the terminal's width.

    Arguments:
        text: the page.
        brief: flags that begin so are described in a sentence, without a flag for each class's own help.
        replaced: other descriptions by flag, and other titles by title.
    """
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 110)
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("usage: "):
            lines += [_usage(line)]
        elif (entry := re.match(r"  (-\S.*?|\S+)(?:  +(.*))?$", line)) and not entry[1].startswith("['"):
            flag = _flag(entry[1])
            is_brief = bool(brief) and flag.startswith(brief)
            if is_brief and ".help" in flag:
                continue
            description = (replaced or {}).get(flag.split()[0]) or entry[2] or ""
            lines += _entry(flag, plain(description, 1 if is_brief else 2), width)
        elif title := re.match(r"(\S.*):$", line):
            lines += [f"{(replaced or {}).get(title[1]) or plain(title[1])}:"]
        elif not line.strip().startswith(("default config file locations", "['")):
            lines += textwrap.wrap(line, width) or [""]
    lines = [line for line in lines if not line.startswith("default config file locations")]
    return re.sub(r"\n\n\n+", "\n\n", "\n".join(lines)) + "\n"


def _flag(given: str) -> str:
    """A flag once, without a placeholder that only repeats its name."""
    given = re.sub(r", (--[\w.]+)\+ .*$", "", given)
    found = re.match(r"(--[\w.]*?(\w+)) (\S+)$", given)
    return found[1] if found and found[3] == found[2].upper() else given


def plain(text: str, sentences: int | None = None) -> str:
    """A description without markup; of the type only the default and the project's own classes are left."""
    text, _, facts = text.partition("(type: ") if "(type: " in text else (text, "", "")
    if not facts and (required := re.search(r"\(required, type: .*\)$", text)):
        text, facts = text[: required.start()], required[0]
    text = re.sub(r":(?:class|meth|func|data|attr|ref|doc|paramref|mod):`~?([^`]*)`", lambda found: _name(found[1]), text)
    text = re.sub(r":math:`([^`]*)`", r"\1", text)
    text = re.sub(r"``?([^`]*)``?", r"\1", text)
    text = re.sub(r"`([^`<]*?)\s*<[^`>]*>`_+", r"\1", text)
    text = " ".join(text.split())
    if sentences is not None:
        text = " ".join(re.split(r"(?<=[.;])\s+(?=[A-Z])", text)[:sentences])
    text = re.sub(r"(?<=[.;]) ?Default: .*$", "", text)
    text = text if text.endswith("...") else text.rstrip(".; ")
    return " ".join(part for part in (text, _classes(facts), _default(facts)) if part)


def _name(target: str) -> str:
    return re.sub(r"\s*<.*>", "", target).split(".")[-1]


def _default(facts: str) -> str:
    found = re.search(r"default: (.*?)(?:, (?:known subclasses|subclasses): .*)?\)?$", facts)
    value = found[1] if found else ""
    return f"(default: {value})" if value and value != "null" and len(value) <= 40 and "class_path" not in value else ""


def _classes(facts: str) -> str:
    found = re.search(r"known subclasses: ([^)]*)", facts)
    if not found:
        return ""
    paths = found[1].split(", ")
    shelves = ("dvae.networks.",) if any(path.startswith("torch.") for path in paths) else _SHELVES
    names = sorted(path.split(".")[-1] for path in paths if path.startswith(shelves))
    return f"[{', '.join(names)}]" if names else ""


def _usage(line: str) -> str:
    flags = re.compile(r"\[-[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\] ?")
    program, rest = line.removeprefix("usage: ").replace(" [options]", ""), ""
    if " [" in program:
        program, rest = program.split(" [", 1)
        rest = flags.sub("", f"[{rest}").strip()
    return " ".join(part for part in ("usage:", program, rest, "[FLAG ...]") if part)


def _entry(flag: str, text: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(text, width - _INDENT) or [""]
    first = f"  {flag}"
    lines = [f"{first:<{_INDENT - 1}} {wrapped[0]}"] if len(first) < _INDENT - 1 else [first, " " * _INDENT + wrapped[0]]
    return [line.rstrip() for line in (*lines, *(" " * _INDENT + more for more in wrapped[1:]))]
