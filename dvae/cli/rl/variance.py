"""``dvae rl variance``: the variance of policy gradients at a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.progress import Progress

from dvae.cli.arguments import Parser, names, write_json
from dvae.lab.policies.variance import ArmVariance, default_arms, networks_of, policy_variance
from dvae.report.tables import print_table
from dvae.rl import ARMS, load
from dvae.rl.checkpoints import environments_of, open_policies

__all__ = ["main"]

_DESCRIPTION = (
    "Compare the variance of estimators' gradients at the policy of a checkpoint, by whole episodes: baselines and surrogates are "
    "fitted to it first, the policy stays as it is."
)


def main(command: str, arguments: Sequence[str]) -> int:
    """Measure arms at one agent's policy and print one table."""
    parser = Parser(command, _DESCRIPTION)
    parser.add_argument("checkpoint", type=str, help="a checkpoint, or a folder of runs, of which the newest best.ckpt is taken")
    text = f"which, out of {', '.join(ARMS)}; default: all that fit the environment"
    parser.add_argument("--estimators", type=names, default=[], help=text)
    parser.add_argument("--agent", type=int, default=0, help="whose policy, of a checkpoint of several")
    skip: set[str | int] = {"agent", "data", "arms", "networks", "discount", "progress"}
    parser.add_function_arguments(policy_variance, as_group=False, skip=skip, fail_untyped=False)
    text = "import what the checkpoint names from outside dvae and gymnasium; it runs that code"
    parser.add_argument("--trust", action="store_true", help=text)
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # there is nothing to share between threads in so small a network
    checkpoint = open_policies(args.checkpoint)
    model = load(checkpoint, trust=args.trust)
    data = environments_of(checkpoint, trust=args.trust, num_steps=None, num_envs=1)
    agent = model.extract(args.agent)
    options = {name: args[name] for name in ("phi_objectives", "num_fits", "num_rollouts", "num_replicates", "lr", "seed")}
    with Progress(transient=True) as bar:
        task = bar.add_task("fitting and measuring", total=args.num_fits + args.num_rollouts)
        results = policy_variance(
            agent,
            data,
            args.estimators or default_arms(agent.action),
            networks=networks_of(model.config["init_args"].get("value")),
            discount=model.discount,
            progress=lambda: bar.advance(task),
            **options,
        )
    episodes = args.num_rollouts * args.num_replicates
    title = f"{checkpoint.path}, agent {args.agent}\nlog trace of the gradient's covariance, {episodes:,} episodes of {data.env}"
    columns = ["estimator", "phi trained per", "log trace", "std. error", f"to {results[0].arm}", "std. error"]
    print_table(title, columns, _rows(results))
    if args.json is not None:
        rows = [_figures(own, results[0]) for own in results]
        write_json(args.json, {"checkpoint": str(checkpoint.path), **options, "arms": rows})
    return 0


def _rows(results: Sequence[ArmVariance]) -> list[tuple[str, ...]]:
    rows = []
    for own in results:
        figures = (*own.log_trace, *own.log_ratio(results[0]))
        rows.append((own.arm, own.phi_objective or "", *(f"{figure:.3f}" for figure in figures)))
    return rows


def _figures(own: ArmVariance, first: ArmVariance) -> dict[str, object]:
    (log_trace, error), (log_ratio, ratio_error) = own.log_trace, own.log_ratio(first)
    figures = {"log_trace": log_trace, "std_error": error, "log_ratio": log_ratio, "log_ratio_std_error": ratio_error}
    return {"estimator": own.arm, "phi_objective": own.phi_objective, **figures}
