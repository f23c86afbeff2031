"""``dvae traverse``: pictures of what single latents do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of, write_json
from dvae.errors import InputError
from dvae.report.tables import print_table

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["main"]

_ROWS_OF_TABLE = 10


def main(command: str, arguments: Sequence[str]) -> int:
    """Draw a model's latents one by one, and the way from code to code."""
    parser = Parser(command, "Pictures of what single latents do, and of the way from one image's code to another's.")
    add_checkpoint(parser)
    add_common(parser)
    parser.add_argument("--out", type=str | None, default=None, help="folder of the pictures; default: beside the checkpoint")
    parser.add_argument("--num_examples", type=int, default=100, help="examples over which a latent's effect is a mean")
    parser.add_argument("--num_latents", type=int, default=16, help="latents that are drawn, those of the largest effect")
    parser.add_argument("--num_pairs", type=int, default=8, help="pairs of images between which is walked")
    parser.add_argument("--json", type=str | None, default=None, help="also write every latent's effect to this file")
    args = parser.parse_args(arguments)
    for name in ("num_examples", "num_latents", "num_pairs"):
        if getattr(args, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(args, name)}")

    from dvae.data import examples_of
    from dvae.lab.evaluate import open_model, picture_shape, sized_for
    from dvae.lab.traverse import effects, picture_of_effects, picture_of_walks
    from dvae.report.pictures import save_picture
    from dvae.training.checkpoints import find_checkpoint

    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_model(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    examples = examples_of(module, args.split, input_key=getattr(model, "input_key", None))
    model = sized_for(model, examples)
    x = model.check_input(examples.some(max(args.num_examples, 2 * args.num_pairs), args.seed).to(model.device))
    codes = model.codes(x)[:, : model.num_latents]
    shape = picture_shape(model, module, examples)
    folder = path.parent if args.out is None else Path(args.out)
    num_pairs = min(args.num_pairs, len(codes) // 2)
    pictures = {"interpolations": picture_of_walks(model, codes[: 2 * num_pairs], shape, args.seed)} if num_pairs else {}
    if model.latent.num_values is not None:
        codes = codes[: args.num_examples]
        found = effects(model, codes)
        pictures["latents"] = picture_of_effects(model, codes, found.argsort(descending=True)[: args.num_latents].tolist(), shape)
        _print(codes, found, len(codes))
        if args.json is not None:
            write_json(args.json, {"num_examples": len(codes), "effects": found.tolist()})
    elif args.json is not None:
        raise InputError(f"json is for latents of bits or classes, got {model.latent.family.__name__}: leave it out")
    for name, picture in pictures.items():
        print(f"{name}: {save_picture(picture, folder / f'{name}.png')}")
    return 0


def _print(codes: Tensor, effects: Tensor, number: int) -> None:
    rows = []
    for latent in effects.argsort(descending=True)[:_ROWS_OF_TABLE].tolist():
        values, counts = codes[:, latent].unique(return_counts=True)
        common = counts.argmax()
        share = f"{values[common].item():g} in {counts[common].item() / number:.0%}"
        rows.append((str(latent), f"{effects[latent].item():.4f}", share))
    middle = effects.median().item()
    title = f"the latents that change the image most, of {len(effects)} (median effect {middle:.4f}), over {number} examples"
    print_table(title, ["latent", "change of a pixel, root mean square", "most frequent value"], rows)
