"""Tables on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["labels", "print_table"]


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart, if possible without what all runs have, such as ``version_0``."""
    runs = [list(path.parts) for path in paths]
    for own in runs:
        while len(own) > 1 and _says_nothing(own[-1]):
            del own[-1]
    for parts in (runs, [list(path.parts) for path in paths]):
        for length in range(1, max(map(len, parts), default=0) + 1):
            ends = ["/".join(own[-length:]) for own in parts]
            if len(set(ends)) == len(ends):
                return ends
    return [str(path) for path in paths]


def _says_nothing(part: str) -> bool:
    return part == "checkpoints" or part.endswith(".ckpt") or re.fullmatch(r"version_\d+", part) is not None


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table below its title, whose lines stay whole; the first column is left-aligned, the others are figures."""
    table = Table()
    for index, column in enumerate(columns):
        longest = max((len(row[index]) for row in rows), default=0)
        table.add_column(
            column,
            justify="right" if index else "left",
            no_wrap=longest <= _LONGEST_FIGURE,
            min_width=min(longest, _LONGEST_FIGURE),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    console = Console()
    natural = console.measure(table, options=console.options.update(max_width=1000)).maximum
    if natural > console.width:
        table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
        # Long lines lose less than columns that are cut off.
        natural = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console = Console(width=max(natural, console.width))
    console.print(Text(title, style="bold"), soft_wrap=True)  # a table's own title is broken to the table's width
    console.print(table)


# What is longer is text, which a narrow terminal may break.
_LONGEST_FIGURE = 14
