"""``dvae certify``: an estimator against exact enumeration."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from rich.progress import Progress

from dvae.cli.arguments import Parser, renamed, write_json
from dvae.errors import InputError
from dvae.estimators import CATALOGUE, named
from dvae.lab.certify.certificate import Certificate, certify, num_reports
from dvae.report.tables import print_table

__all__ = ["main"]

_NO_FLAGS: set[str | int] = {"estimator", "latents", "progress"}
_RENAMED = {"problems": "num_problems", "samples": "num_samples", "latents": "num_latents"}


def main(command: str, arguments: Sequence[str]) -> int:
    """Certify one estimator, or all of the library."""
    parser = Parser(command, "Measure an estimator's bias and variance against exact enumeration.")
    text = "such as RELAX, 'LOO(num_samples=4)' or the import path of a class, my_estimators.Mine"
    parser.add_argument("estimator", type=str, nargs="?", default=None, help=text)
    parser.add_argument("--all", action="store_true", help="every estimator of the library, in one table")
    parser.add_argument("--init_args", type=dict | None, default=None, help="its arguments, such as '{\"coupled\": false}'")
    parser.add_function_arguments(certify, as_group=False, skip=_NO_FLAGS)
    parser.add_argument("--json", type=str | None, default=None, help="also write the certificate to this file")
    args = parser.parse_args(renamed(arguments, _RENAMED))
    if args.all == (args.estimator is not None):
        raise InputError(f"either an estimator or --all must be given, got {'both' if args.all else 'neither'}")
    return _certify_all(args) if args.all else _certify(args)


def _certify(args: Namespace) -> int:
    estimator = named(args.estimator, args.init_args or {}, "estimator").make()
    with Progress(transient=True) as bar:
        task = bar.add_task(f"certifying {type(estimator).__name__}", total=num_reports(estimator, args.num_problems))
        certificate = certify(estimator, **_options(args), progress=lambda report: bar.advance(task))
    rows = [
        (
            r.problem,
            f"{r.max_z:.2f}",
            f"{r.bias:.2%} ± {r.bias_error:.2%}",
            f"{r.variance:.3g}",
            _figure(r.reinforce_variance),
            _figure(r.optimal_baseline_variance),
        )
        for r in certificate.reports
    ]
    columns = ["problem", "largest |z|", "relative error", "variance", "REINFORCE's", "with best constant"]
    title = f"{args.estimator}: {args.num_samples} samples a problem, {certificate.measured_evaluations} evaluations of f"
    print_table(title, columns, rows)
    print(certificate.verdict)
    if args.json is not None:
        write_json(args.json, certificate.as_dict())
    return 0 if certificate.passed else 1


def _certify_all(args: Namespace) -> int:
    certificates: dict[str, Certificate] = {}
    with Progress(transient=True) as bar:
        total = sum(num_reports(make(), args.num_problems) for make in CATALOGUE.values())
        task = bar.add_task("certifying", total=total)
        for name, make in CATALOGUE.items():
            bar.update(task, description=f"certifying {name}")
            certificates[name] = certify(make(), **_options(args), progress=lambda report: bar.advance(task))
            if args.json is not None:  # a long run's figures are not lost with it
                write_json(args.json, {each: found.as_dict() for each, found in certificates.items()})
    rows = [
        (
            name,
            " ".join(family[0] for family in found.latents),
            f"{found.max_z:.2f}",
            "none" if found.passed else f"{found.bias[0]:.1%} ± {found.bias[1]:.1%}",
            "" if found.variance_ratio is None else f"{found.variance_ratio:.3f}",
            f"{found.measured_evaluations}",
            f"{found.microseconds / certificates['REINFORCE'].microseconds:.1f}",
        )
        for name, found in certificates.items()
    ]
    columns = ["estimator", "for", "|z|", "bias", "variance", "f", "time"]
    title = (
        f"{args.num_problems + 2} problems for each family of latents, {args.num_samples} draws;\nvariance and time in REINFORCE's"
    )
    print_table(title, columns, rows)
    failed = {name: found.verdict for name, found in certificates.items() if not found.as_declared}
    print(f"{len(certificates) - len(failed)} of {len(certificates)} estimators are as they declare")
    for name, verdict in failed.items():
        print(f"{name}: {verdict}")
    return 1 if failed else 0


def _options(args: Namespace) -> dict[str, Any]:
    return {name: args[name] for name in inspect.signature(certify).parameters if name not in _NO_FLAGS}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
