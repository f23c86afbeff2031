"""``dvae rl certify``: the bias of policy gradients against enumeration of all trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.progress import Progress

from dvae.cli.arguments import Parser, names, write_json
from dvae.errors import InputError
from dvae.lab.policies.certificate import certify_arm
from dvae.report.tables import print_table
from dvae.rl import ARMS

__all__ = ["main"]

_MAX_Z = 4.0
_DESCRIPTION = (
    "Measure a policy gradient's bias on random tabular decision processes, against enumeration of all trajectories: environments, "
    "rollouts, credit, estimator and update together. Fails where one that is called unbiased is not."
)


def main(command: str, arguments: Sequence[str]) -> int:
    """Certify arms and print one table; the status is 1 where one is not what it says."""
    parser = Parser(command, _DESCRIPTION)
    text = f"which, out of {', '.join(ARMS)}, or import paths"
    parser.add_argument("--estimators", type=names, default=list(ARMS), help=text)
    skip: set[str | int] = {"name", "latent"}
    parser.add_function_arguments(certify_arm, as_group=False, skip=skip)
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    if args.num_episodes < 20_000:
        raise InputError(f"num_episodes must be at least 20000, got {args.num_episodes}")
    torch.set_num_threads(1)
    rows, figures, sound = [], [], True
    with Progress(transient=True) as bar:
        task = bar.add_task("certifying", total=len(args.estimators))
        for name in args.estimators:
            bar.update(task, description=name)
            for own in certify_arm(name, num_actions=args.num_actions, num_episodes=args.num_episodes, seed=args.seed):
                passed = own.max_z < _MAX_Z
                sound = sound and (passed or not own.unbiased)
                verdict = "unbiased" if passed else "biased" if own.unbiased else "biased, as it says"
                kind = own.latent
                rows.append((name, kind, own.process, f"{own.max_z:.2f}", f"{100 * own.bias:.2f}%", f"{own.variance:.3g}", verdict))
                figures.append(own._asdict())
            bar.advance(task)
    title = f"Policy gradients against enumeration, {args.num_episodes:,} episodes each; biased from |z| {_MAX_Z:g} on"
    print_table(title, ["estimator", "actions", "rollouts", "largest |z|", "bias", "variance", "verdict"], rows)
    if args.json is not None:
        write_json(args.json, {"num_episodes": args.num_episodes, "seed": args.seed, "reports": figures})
    return 0 if sound else 1
