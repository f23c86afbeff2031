"""``dvae variance``: estimators side by side at one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import Progress

from dvae.cli.arguments import Parser, add_checkpoint, add_common, device_of, names, renamed, write_json
from dvae.errors import InputError
from dvae.lab.evaluate import open_model
from dvae.lab.variance import applicable_estimators, compare_variance
from dvae.report.tables import print_table
from dvae.report.variance import plot_variance
from dvae.training.checkpoints import find_checkpoint

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Measure estimators at a checkpoint and print one table."""
    parser = Parser(command, "Compare the variance of estimators' gradients at a checkpoint.")
    add_checkpoint(parser)
    add_common(parser, split=False, seed=False)
    text = "such as '[RELAX, LOO(num_samples=4), my_estimators.Mine]'; default: all of the library for the model's latents"
    parser.add_argument("--estimators", type=names, default=None, help=text)
    parser.add_function_arguments(compare_variance, as_group=False, skip={"model", "data", "estimators", "progress"})
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    parser.add_argument("--plot", type=str | None, default=None, help="also draw them into this .png file")
    args = parser.parse_args(renamed(arguments, {"draws": "num_draws"}))
    torch.set_num_threads(args.threads)
    if args.plot is not None and Path(args.plot).suffix != ".png":
        raise InputError(f"plot must be a .png file, got {args.plot}")
    path = find_checkpoint(args.checkpoint)
    model, module, _ = open_model(path, args.data, device=device_of(args.device), trust=args.trust, replica=args.replica)
    chosen = applicable_estimators(model.latent.family) if args.estimators is None else args.estimators
    with Progress(transient=True) as bar:
        task = bar.add_task("measuring", total=len(chosen))
        reports = compare_variance(
            model,
            module,
            chosen,
            num_draws=args.num_draws,
            phi_steps=args.phi_steps,
            phi_lr=args.phi_lr,
            batch_size=args.batch_size,
            seed=args.seed,
            progress=lambda name: bar.update(task, advance=1, description=f"measured {name}"),
        )
    rows = [
        (
            r.estimator if r.unbiased else f"{r.estimator} (biased)",
            f"{r.logits:.2f}±{r.logits_error:.2f}",
            f"{r.encoder:.2f}±{r.encoder_error:.2f}",
            f"{r.evaluations}",
            f"{r.encoder_per_evaluation:.2f}",
            f"{r.milliseconds:.1f}",
            f"{r.encoder_per_second:.2f}",
        )
        for r in sorted(reports, key=lambda report: report.encoder)
    ]
    title = f"{path}\nlog-variance of the gradient, {args.num_draws} draws, phi fitted for {args.phi_steps} steps"
    print_table(title, ["estimator", "logits", "encoder", "f", "enc. x f", "ms", "enc. x s"], rows)
    if args.json is not None:
        figures = [report.as_dict() for report in reports]
        write_json(args.json, {"checkpoint": str(path), "phi_steps": args.phi_steps, "draws": args.num_draws, "reports": figures})
    if args.plot is not None:
        print(f"plot: {plot_variance(reports, args.plot)}")
    return 0
