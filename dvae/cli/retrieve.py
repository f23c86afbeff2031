"""``dvae retrieve``: search by codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of, write_json
from dvae.report.tables import print_table

if TYPE_CHECKING:
    from dvae.lab.retrieval import Retrieval

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Search the training set by codes; a table of figures and a picture."""
    parser = Parser(command, "Search the training set by bits: figures against simpler codes of as many bits, and a picture.")
    add_checkpoint(parser)
    add_common(parser)
    parser.add_argument("--num_queries", type=int, default=1000, help="queries, the split's first examples")
    parser.add_argument("--k", type=int, default=10, help="neighbours of each query")
    parser.add_argument("--out", type=str | None, default=None, help="folder of the picture; default: beside the checkpoint")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)

    from dvae.errors import InputError
    from dvae.lab.evaluate import open_model
    from dvae.lab.retrieval import retrieve
    from dvae.training.checkpoints import find_checkpoint

    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_model(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    found = retrieve(model, module, split=args.split, num_queries=args.num_queries, k=args.k, seed=args.seed, trust=args.trust)
    if found.figures is None and args.json is not None:
        raise InputError("json is for figures, which need labels, but the data have none: leave it out")
    _print(found, args.k)
    if args.json is not None and found.figures is not None:
        figures = {name: {key: mean._asdict() for key, mean in own._asdict().items()} for name, own in found.figures.items()}
        write_json(args.json, {"k": args.k, "num_queries": len(found.queries.bits), "codes": figures})
    if getattr(module, "are_images", True):
        from dvae.lab.retrieval import picture_of_neighbours
        from dvae.report.pictures import save_picture

        picture = picture_of_neighbours(model, found, getattr(module, "image_shape", None) or model.image_shape)
        folder = path.parent if args.out is None else Path(args.out)
        print(f"queries and their neighbours: {save_picture(picture, folder / 'neighbours.png')}")
    return 0


def _print(found: Retrieval, k: int) -> None:
    about = f"{len(found.queries.bits)} queries in {len(found.database.bits)} examples, {found.queries.bits.shape[1]} bits"
    if found.figures is None:
        print(f"{about}; the data have no labels, so that nothing is measured")
        return
    rows = [(name, *(f"{mean.mean:.4f}±{mean.standard_error:.4f}" for mean in own)) for name, own in found.figures.items()]
    columns = ["", f"precision of {k}", "average precision", f"{k} neighbours' vote", "linear probe"]
    print_table(about, columns, rows)
