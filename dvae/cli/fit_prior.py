"""``dvae fit-prior``: another prior for a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvae.cli.arguments import Parser, add_checkpoint, quiet_lightning
from dvae.cli.runs import run_table
from dvae.errors import InputError
from dvae.priors import Prior
from dvae.training.afterwards import fit_prior

__all__ = ["main"]

_NAMES = {"autoregressive": "Autoregressive", "boltzmann": "BoltzmannMachine", "factorial": "Factorial"}


def main(command: str, arguments: Sequence[str]) -> int:
    """Fit a prior on a checkpoint's codes, and write a checkpoint that has it."""
    parser = Parser(command, "Fit another prior on a checkpoint's codes; encoder and decoder stay as they are.")
    add_checkpoint(parser)
    text = "the new prior: autoregressive, boltzmann, factorial, or a class, whose arguments follow as in --prior.hidden '[400]'"
    parser.add_subclass_arguments(Prior, "prior", required=True, help=text)
    text = "'bundled', a file or a folder, or a class of data modules by its import path; default: the checkpoint's own data"
    parser.add_argument("--data", type=str | None, default=None, help=text)
    parser.add_function_arguments(fit_prior, as_group=False, skip={"model", "prior", "data", "trainer"}, fail_untyped=False)
    parser.add_argument("--accelerator", type=str, default="auto", help="cpu, gpu or another of Lightning's")
    parser.add_argument("--runs", type=str, default="runs", help="folder that holds all runs")
    text = "name of the run, by default of the checkpoint's and the prior; each gets a new RUNS/NAME/version_K"
    parser.add_argument("--name", type=str | None, default=None, help=text)
    text = "import classes from outside dvae that the checkpoint names; it runs their code"
    parser.add_argument("--trust", action="store_true", help=text)
    args = parser.parse_args([_with_class(argument) for argument in arguments])
    prior = args.prior.as_dict()
    prior["init_args"] = dict(prior.get("init_args") or {})

    import torch

    from dvae.training.callbacks import ProgressBar
    from dvae.training.checkpoints import Checkpoint, DurableCheckpointIO
    from dvae.training.record import with_prior

    quiet_lightning()
    torch.set_num_threads(1)
    checkpoint = Checkpoint.open(args.checkpoint)
    content = checkpoint.single(args.replica)
    model = checkpoint.model(args.replica, trust=args.trust)
    data = _data(content, args.data, args.trust)
    table = run_table(args.runs, args.name or _name(checkpoint.path, prior["class_path"]))
    fitted = fit_prior(
        model,
        prior,
        data,
        max_steps=args.max_steps,
        lr=args.lr,
        val_check_interval=args.val_check_interval,
        patience=args.patience,
        seed=args.seed,
        logger=table,
        callbacks=[ProgressBar(refresh_rate=50)],
        accelerator=args.accelerator,
        log_every_n_steps=min(200, args.max_steps),
    )
    out = Path(table.log_dir) / "checkpoints" / "best.ckpt"
    out.parent.mkdir(parents=True, exist_ok=True)
    DurableCheckpointIO().save_checkpoint(with_prior(content, fitted.model), out)
    print(
        f"{type(fitted.model.prior).__name__} after {fitted.step} updates: log p(b) of validation codes {fitted.log_prob:.2f} ± "
        f"{fitted.standard_error:.2f} nats"
    )
    print(f"evaluate it with: dvae evaluate {out}")
    return 0


def _with_class(argument: str) -> str:
    """A prior's class for its short name."""
    flag, equals, value = argument.rpartition("=")
    return f"{flag}{equals}{_NAMES.get(value, value)}" if flag in ("", "--prior") else argument


def _data(content: Any, given: str | None, trust: bool) -> Any:
    from dvae.data import data_module
    from dvae.training.record import data_of

    saved = data_of(content)
    if given is None and saved is None:
        raise InputError("the checkpoint does not say what data it was trained on; pass --data")
    return data_module(saved if given is None else given, trust=trust)


def _name(path: Path, prior: str) -> str:
    """The checkpoint's run's, and the prior's."""
    folders = [part for part in path.absolute().parts[:-1] if part != "checkpoints" and not part.startswith("version_")]
    return f"{folders[-1]}_then_{prior.rpartition('.')[2].lower()}"
