"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["print_table"]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others are figures."""
    table = Table(title=title, title_justify="left", title_style="bold")
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
    console.print(table)


# What is longer is text, which a narrow terminal may break.
_LONGEST_FIGURE = 14
