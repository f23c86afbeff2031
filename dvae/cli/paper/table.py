"""``dvae paper table``: published figures beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvae.cli.arguments import Parser, names
from dvae.cli.paper.run import RESULTS, require_rows
from dvae.lab.paper import ROWS, read_results, shipped_results, table_rows
from dvae.lab.paper.figures import COLUMNS
from dvae.report.tables import print_table

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = Parser(command, "Print the published figures beside ours: of runs that came with the package, and of your own.")
    parser.add_argument("--rows", type=names, default=list(ROWS), help=f"out of {', '.join(ROWS)}")
    parser.add_argument("--results", type=str, default=RESULTS, help="folder that dvae paper run wrote its results to")
    parser.add_argument("--markdown", action="store_true", help="print it as the guide has it")
    args = parser.parse_args(arguments)
    require_rows(args.rows)
    rows = table_rows([*shipped_results(), *read_results(Path(args.results))], args.rows)
    if args.markdown:
        print("\n".join(f"| {' | '.join(line)} |" for line in (COLUMNS, ["---"] * len(COLUMNS), *rows)))
        return 0
    title = (
        "nats; of several learning rates the one that is best on the validation set\nvalid and test: ours of the best checkpoint"
    )
    print_table(title, list(COLUMNS), rows)
    return 0
