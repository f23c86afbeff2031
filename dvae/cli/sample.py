"""``dvae sample``: pictures of what a model draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of, renamed
from dvae.errors import InputError

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Draw samples of the prior and reconstructions."""
    parser = Parser(command, "PNG grids of samples from the prior and of reconstructions.")
    add_checkpoint(parser)
    add_common(parser)
    parser.add_argument("--out", type=str | None, default=None, help="folder of the pictures; default: beside the checkpoint")
    parser.add_argument("--num_images", type=int, default=64, help="images in each picture")
    args = parser.parse_args(renamed(arguments, {"images": "num_images"}))
    if args.num_images < 1:
        raise InputError(f"num_images must be at least 1, got {args.num_images}")

    import torch

    from dvae.data import examples_of
    from dvae.lab.evaluate import open_autoencoder, picture_shape, sized_for
    from dvae.models import VAE
    from dvae.report.pictures import reconstruction_grid, sample_grid, save_picture
    from dvae.training.checkpoints import find_checkpoint

    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_autoencoder(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    generator = torch.Generator().manual_seed(args.seed)
    folder = path.parent if args.out is None else Path(args.out)
    examples = examples_of(module, args.split, input_key=getattr(model, "input_key", None))
    model = sized_for(model, examples)
    shape = picture_shape(model, module, examples)
    x = model.check_input(examples.some(max(args.num_images // 2, 1), args.seed).to(model.device))
    pictures = {}
    if isinstance(model, VAE):
        pictures["samples"] = sample_grid(model, args.num_images, shape, generator)
    else:
        print("samples: none, for a quantised autoencoder has no prior to draw codes from")
    pictures["reconstructions"] = reconstruction_grid(model, x, shape, generator)
    for name, picture in pictures.items():
        print(f"{name}: {save_picture(picture, folder / f'{name}.png')}")
    return 0
