"""``dvae tokenize``: images as grids of integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae.cli.arguments import Parser, add_checkpoint, add_device, add_trust, device_of
from dvae.errors import InputError

if TYPE_CHECKING:
    from dvae.models import Autoencoder

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Write the tokens of a folder of images, or of other data."""
    parser = Parser(command, "Tokens of images, one integer at each place of the code's grid, as .npz; a killed run goes on.")
    add_checkpoint(parser)
    text = "a folder of images, 'bundled', a file, or a class of data modules by its import path"
    parser.add_argument("data", type=str, help=text)
    text = "the .npz file to write: tokens [N, height, width], num_ids, and labels and file names where the data have them"
    parser.add_argument("--out", type=str, required=True, help=text)
    text = "side of the square that images of a folder are resized and cut to, pixels; default: the model's"
    parser.add_argument("--size", type=int | None, default=None, help=text)
    parser.add_argument(
        "--split", type=str, default="train", help="train, valid or test; of a folder without such ones train is all"
    )
    parser.add_argument("--batch_size", type=int, default=100, help="images encoded at a time")
    add_device(parser)
    add_trust(parser)
    args = parser.parse_args(arguments)

    from rich.progress import Progress

    from dvae.lab.evaluate import open_autoencoder
    from dvae.lab.tokens import tokenize
    from dvae.training.checkpoints import find_checkpoint

    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_autoencoder(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    module = _of_size(module, model, args.data, args.size)
    with Progress(transient=True) as bar:
        task = bar.add_task(f"{args.data}, {args.split}", total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        written = tokenize(model, module, args.out, split=args.split, batch_size=args.batch_size, progress=show)
    count, height, width = written.shape
    before = f", {written.resumed} of them by an earlier run" if written.resumed else ""
    print(f"tokens of {count} images{before}, {height} x {width} each, from 0 to {written.num_ids - 1}: {written.path}")
    return 0


def _of_size(module: Any, model: Autoencoder, source: str, size: int | None) -> Any:
    """A folder of images at the size that is asked for, and of the model's channels; other data as they are."""
    from dvae.data import ImageFolder

    if not (isinstance(module, ImageFolder) and Path(source).is_dir()):
        if size is not None:
            raise InputError(f"size is for folders of images, got size={size} for {source}, whose images have a size of their own")
        return module
    if model.image_shape is None:
        return module
    return ImageFolder(source, model.image_shape[-1] if size is None else size, channels=model.image_shape[0])
