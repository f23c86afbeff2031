"""``dvae export``: a trained model for other people and other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dvae.cli.arguments import Parser, add_checkpoint, add_trust
from dvae.errors import InputError

__all__ = ["main"]

_FORMATS = ("hub", "onnx", "torch-export")


def main(command: str, arguments: Sequence[str]) -> int:
    """Write a model as a folder to share, or its encoder and decoder for other programs."""
    parser = Parser(command, "A model as a folder to share, or its encoder and decoder for other programs.")
    add_checkpoint(parser)
    text = "hub: a folder for from_pretrained and the Hugging Face hub; onnx, torch-export: encoder and decoder, a file each"
    parser.add_argument("--format", type=str, default="hub", help=text)
    parser.add_argument("--out", type=str, required=True, help="folder to write into")
    text = "hub: what dvae evaluate --json wrote, for the table of the model's card"
    parser.add_argument("--figures", type=str | None, default=None, help=text)
    add_trust(parser)
    args = parser.parse_args(arguments)
    if args.format not in _FORMATS:
        raise InputError(f"format must be {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}, got {args.format!r}")
    if args.figures is not None and args.format != "hub":
        raise InputError(f"figures are for the card of --format hub, got format {args.format}: leave them out")

    from dvae.training.checkpoints import Checkpoint

    figures = [] if args.figures is None else _rows(Path(args.figures))
    model = Checkpoint.open(args.checkpoint).model(args.replica, trust=args.trust)
    if args.format == "hub":
        folder = model.save_pretrained(args.out, figures)
        print(f"model: {folder}, for dvae.VAE.from_pretrained({str(folder)!r}); hf upload NAME {folder} shares it")
        return 0
    from dvae.lab.export import export

    encoder, decoder = export(model, args.out, args.format)
    print(f"encoder: {encoder}\ndecoder: {decoder}")
    return 0


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """The rows of the table of an evaluation of one model."""
    from dvae.lab.evaluate import Evaluation

    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        return Evaluation.of({name: figures[name] for name in Evaluation._fields if name in figures}).rows()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"figures must be a file that dvae evaluate --json wrote of one model, got {path}") from None
