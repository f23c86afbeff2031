"""``dvae encode``: a data set's codes as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of
from dvae.errors import InputError
from dvae.files import written_whole

__all__ = ["main", "save_codes"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Write the most probable codes of a split."""
    parser = Parser(command, "Codes of a data set, as .npz; binary ones bit-packed.")
    add_checkpoint(parser)
    add_common(parser)
    text = "the .npz file to write: codes (binary ones bit-packed, with num_bits), and labels where the data have them"
    parser.add_argument("--out", type=str, required=True, help=text)
    args = parser.parse_args(arguments)
    if Path(args.out).suffix != ".npz":
        raise InputError(f"out must be a .npz file, got {args.out}")

    from dvae.lab.codes import encode_labelled
    from dvae.lab.evaluate import open_autoencoder
    from dvae.training.checkpoints import find_checkpoint

    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_autoencoder(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    codes, labels = encode_labelled(model, module, args.split)
    print(save_codes(codes.numpy(), args.out, binary=model.latent.family.binary, labels=labels))
    return 0


def save_codes(codes: Any, out: str | Path, binary: bool, labels: Any = None) -> str:
    """Write codes [N, D] to a .npz file, bits packed, and labels [N]; returns a line that says how to read them."""
    import numpy as np

    size = f"{codes.shape[0]} codes of {codes.shape[1]}"
    more: dict[str, Any] = {} if labels is None else {"labels": np.asarray(labels)}
    beside = "" if labels is None else ", with labels"
    with written_whole(out) as temporary:
        if binary:
            np.savez_compressed(temporary, codes=np.packbits(codes, axis=1), num_bits=np.array(codes.shape[1]), **more)
            return f"{size} bits{beside}: {out} (numpy.unpackbits(codes, axis=1, count=num_bits))"
        np.savez_compressed(temporary, codes=codes, **more)
        return f"{size} numbers ({codes.dtype}){beside}: {out}"
