"""``dvae decode``: images of stored codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae.cli.arguments import Parser, add_checkpoint, add_device, add_trust, device_of
from dvae.errors import InputError
from dvae.files import written_whole

if TYPE_CHECKING:
    from dvae.models import VAE

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Write the images of the codes or tokens in a file."""
    parser = Parser(command, "Images of the codes or tokens in a file: the mean of x given each.")
    add_checkpoint(parser)
    parser.add_argument("codes", type=str, help="a .npz file that dvae encode, dvae predict or dvae tokenize wrote")
    text = "what to write: a .npz file with images, and labels where the codes have them, or a folder of PNG files"
    parser.add_argument("--out", type=str, required=True, help=text)
    parser.add_argument("--batch_size", type=int, default=1000, help="codes decoded at a time")
    add_device(parser)
    add_trust(parser)
    args = parser.parse_args(arguments)
    if Path(args.out).suffix not in ("", ".npz"):
        raise InputError(f"out must be a .npz file or a folder, got {args.out}")
    if args.batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {args.batch_size}")

    import torch

    from dvae.lab.decoding import decode, read_codes
    from dvae.training.checkpoints import Checkpoint

    stored = read_codes(args.codes)
    device = device_of(args.device) or ("cuda" if torch.cuda.is_available() else "cpu")
    model = Checkpoint.open(args.checkpoint).model(args.replica, trust=args.trust).to(device)
    images = decode(model, stored.codes, args.batch_size)
    if Path(args.out).suffix:
        _save_arrays(Path(args.out), images, stored.labels)
    else:
        _save_pictures(Path(args.out), model, images)
    print(f"images of {len(images)} codes, {' x '.join(map(str, images.shape[1:]))} each: {args.out}")
    return 0


def _save_arrays(path: Path, images: Any, labels: Any) -> None:
    import numpy as np

    more = {} if labels is None else {"labels": labels.numpy()}
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, images=images.numpy(), **more)


def _save_pictures(folder: Path, model: VAE, images: Any) -> None:
    from dvae.report.pictures import as_images, save_picture

    if images.dim() != 4:
        raise InputError(f"out must be a .npz file, for the model's {images.shape[1]} values are no image, got {folder}")
    digits = len(str(len(images) - 1))
    for number, picture in enumerate(as_images(model, images.flatten(1), images.shape[1:])):
        save_picture(picture, folder / f"{number:0{digits}}.png")
