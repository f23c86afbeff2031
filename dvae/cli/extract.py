"""``dvae extract``: one model out of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvae.cli.arguments import Parser

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Write the ordinary checkpoint of one replica."""
    parser = Parser(command, "One model out of a checkpoint of several replicas, as an ordinary checkpoint.")
    parser.add_argument("checkpoint", type=str, help="a checkpoint of several replicas, or a folder of runs")
    parser.add_argument("--replica", type=int, required=True, help="which, from 0")
    parser.add_argument("--out", type=str | None, default=None, help="file to write; default: beside it, NAME.replica_R.ckpt")
    args = parser.parse_args(arguments)

    from dvae.training.checkpoints import DurableCheckpointIO, find_checkpoint, read_checkpoint
    from dvae.training.record import extract

    path = find_checkpoint(args.checkpoint)
    single = extract(read_checkpoint(path), args.replica)
    out = path.with_name(f"{path.stem}.replica_{args.replica}.ckpt") if args.out is None else Path(args.out)
    DurableCheckpointIO().save_checkpoint(single, out)
    print(f"replica {args.replica}: {out}")
    return 0
