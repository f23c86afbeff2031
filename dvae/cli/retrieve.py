"""``dvae retrieve``: search by codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of, whole_numbers, write_json
from dvae.errors import InputError
from dvae.report.tables import print_table

if TYPE_CHECKING:
    from dvae.lab.likeness import Mean
    from dvae.lab.retrieval import Retrieval

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Search the training set by codes; a table of figures and a picture."""
    parser = Parser(command, "Search the training set by bits: figures against simpler codes of as many bits, and a picture.")
    add_checkpoint(parser)
    add_common(parser)
    parser.add_argument("--num_queries", type=int, default=1000, help="queries, the split's first examples")
    text = "numbers of neighbours: precision of each, the vote of the first"
    parser.add_argument("--k", type=whole_numbers, default=[10, 100], help=text)
    text = "a file of usearch with the training set's codes, read if it is there and made if not; its recall and speed are measured"
    parser.add_argument("--index", type=str | None, default=None, help=text)
    parser.add_argument("--out", type=str | None, default=None, help="folder of the picture; default: beside the checkpoint")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)

    from dvae.lab.evaluate import open_model
    from dvae.lab.retrieval import retrieve
    from dvae.training.checkpoints import find_checkpoint

    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_model(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    found = retrieve(model, module, split=args.split, num_queries=args.num_queries, k=args.k, seed=args.seed, trust=args.trust)
    if found.figures is None and args.json is not None:
        raise InputError("json is for figures, which need labels that both sets have, but the data have none: leave it out")
    _print(found, args.k)
    if args.index is not None:
        _measure_index(Path(args.index), found, max(args.k))
    if args.json is not None and found.figures is not None:
        figures = {name: own.as_dict() for name, own in found.figures.items()}
        write_json(args.json, {"k": args.k, "num_queries": len(found.queries.bits), "codes": figures})
    if getattr(module, "are_images", True):
        from dvae.lab.retrieval import picture_of_neighbours
        from dvae.report.pictures import save_picture

        picture = picture_of_neighbours(model, found, getattr(module, "image_shape", None) or model.image_shape)
        folder = path.parent if args.out is None else Path(args.out)
        print(f"queries and their neighbours: {save_picture(picture, folder / 'neighbours.png')}")
    return 0


def _print(found: Retrieval, k: Sequence[int]) -> None:
    about = f"{len(found.queries.bits)} queries in {len(found.database.bits)} examples, {found.queries.bits.shape[1]} bits"
    if found.figures is None:
        print(f"{about}; the data have no labels that both sets have, so that nothing is measured")
        return
    rows = [(name, *map(_cell, own.means)) for name, own in found.figures.items()]
    precisions = [f"precision of {number}" for number in k]
    columns = ["", *precisions, "average precision", f"{k[0]} neighbours' vote", "linear probe"]
    print_table(about, columns, rows)


def _cell(mean: Mean) -> str:
    return f"{mean.mean:.4f}±{mean.standard_error:.4f}"


def _measure_index(path: Path, found: Retrieval, k: int) -> None:
    """Read or make the index, and say what it finds and how fast."""
    from dvae.lab.search import Index, nearest, recall, seconds

    queries, database = found.queries.bits, found.database.bits
    made = "" if path.exists() else f", made in {seconds(lambda: Index(database).save(path)):.1f} s"
    index = Index.open(path)
    if not index.holds(database):
        raise InputError(
            f"index {path} is not of the codes that this model gives the training set: name another file, or remove it"
        )
    share = recall(index.nearest(queries, k), queries, database, k)
    searches = (lambda: index.nearest(queries, k), lambda: nearest(queries, database, k))
    rate, exact = (f"{len(queries) / seconds(search):.0f} queries/s" for search in searches)
    print(f"index {path} of {len(index)} codes{made}: {share:.4f} of the {k} nearest, {rate}; the exact search {exact}")
