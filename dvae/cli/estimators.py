"""``dvae estimators``: the library's list."""

from __future__ import annotations

from collections.abc import Sequence

from dvae.cli.arguments import Parser

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Print what every estimator says of itself."""
    parser = Parser(command, "List the library's gradient estimators.")
    parser.add_argument("--markdown", action="store_true", help="print the table as the README has it")
    args = parser.parse_args(arguments)

    from dvae.estimators import CATALOGUE, facts
    from dvae.report.tables import print_table

    columns = ["class", "what it is", "evaluations of f", "needs f'", "latents", "unbiased", "source"]
    classes = dict.fromkeys(type(make()) for make in CATALOGUE.values())
    rows = [facts(cls) for cls in classes]
    if args.markdown:
        lines = [columns, ["---"] * len(columns), *([f"`{row.name}`", *row[1:]] for row in rows)]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return 0
    title = "dvae.estimators, for latents: B Bernoulli, C Categorical, G Gaussian, P PlackettLuce"
    short = [
        (
            row.name,
            row.evaluations,
            row.differentiates,
            " ".join(name[0] for name in row.latents.split(", ")),
            row.unbiased,
            row.source,
        )
        for row in rows
    ]
    print_table(title, ["class", "f", "f'", "for", "unbiased", "source"], short)
    return 0
