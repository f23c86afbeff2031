"""``dvae benchmark``: how long a step takes, or a search."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from statistics import median

import torch
from jsonargparse import Namespace
from rich.progress import Progress

from dvae.cli.arguments import Parser, device_of, names, quiet_lightning, write_json
from dvae.errors import InputError
from dvae.lab.benchmark import (
    ALGORITHMS,
    ESTIMATORS,
    GROWTH,
    MODES,
    SPATIAL,
    against_peers,
    benchmark,
    growth,
    long_run,
    process_speed,
    projected,
    spatial_speed,
)
from dvae.lab.search import search_speed
from dvae.report.benchmark import plot_growth, plot_times
from dvae.report.tables import print_table

__all__ = ["main"]


def main(command: str, arguments: Sequence[str]) -> int:
    """Time steps and print one table."""
    description = "Time a training step: eager, compiled, of several models; by itself and through Lightning."
    parser = Parser(command, description)
    default = ["REINFORCE", "LOO", "REBAR", "RELAX", "RELAX(coupled=False)"]
    text = "which: '[REINFORCE, RELAX(hidden=32, depth=1)]'; all for the whole library"
    parser.add_argument("--estimators", type=names, default=default, help=text)
    parser.add_argument("--modes", type=names, default=list(MODES), help="which, out of eager, compiled and replicas")
    parser.add_function_arguments(
        benchmark, as_group=False, skip={"estimators", "modes", "steps", "device", "progress", "model_options"}, fail_untyped=False
    )
    text = "timed steps in each repetition, and about as many in each of three stretches of Trainer.fit; default: 300, "
    text += "10 of --spatial, 1000 of --processes"
    parser.add_argument("--steps", type=int | None, default=None, help=text)
    parser.add_argument("--num_layers", type=int, default=1, help="stochastic layers")
    text = "instead, the rate along a compiled run of the first estimator, of so many steps"
    parser.add_argument("--long", type=int | None, default=None, help=text)
    text = "instead, how a compiled step grows with batch, D, K, layers and replicas"
    parser.add_argument("--grow", action="store_true", help=text)
    text = "instead, images a second of the convolutional model with a code on a grid, against a plain PyTorch loop of its networks"
    parser.add_argument("--spatial", action="store_true", help=text)
    text = "instead, exact searches a second among so many random codes of 64 bits, 100 neighbours each: 1000000"
    parser.add_argument("--retrieval", type=int | None, default=None, help=text)
    text = "instead, the eager step against a plain one in PyTorch, the compiled one against a plain one in JAX; on a CPU"
    parser.add_argument("--peers", action="store_true", help=text)
    text = "instead, dvae fit of the first estimator on the CPU by so many processes, which share a model's batches, or --replicas"
    parser.add_argument("--processes", type=list[int] | None, default=None, help=f"{text}: '[1, 2]'")
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch")
    parser.add_argument("--json", type=str | None, default=None, help="also write the figures to this file")
    parser.add_argument(
        "--plot",
        type=str | None,
        default=None,
        help="also draw them, as a PNG file (not for --long, --spatial, --retrieval, --peers and --processes)",
    )
    args = parser.parse_args(arguments)
    quiet_lightning()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # as in dvae fit
    device = device_of(args.device) or torch.device("cpu")
    if args.steps is None:
        args.steps = 10 if args.spatial else 1000 if args.processes is not None else 300
    if args.retrieval is not None:
        return _retrieval(args)
    chosen = list(ESTIMATORS) if args.estimators == ["all"] else args.estimators
    if args.peers:
        return _peers([name for name in chosen if name in ALGORITHMS] if args.estimators == ["all"] else chosen, device, args)
    if args.processes is not None:
        return _processes(chosen[0], device, args)
    if args.spatial:
        return _spatial(device, args)
    if args.long is not None:
        return _long(chosen[0], device, args)
    if args.grow:
        return _growth(chosen, device, args)
    return _times(chosen, device, args)


def _times(chosen: Sequence[str], device: torch.device, args: Namespace) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=(args.repetitions + 1) * len(chosen) * len(args.modes))
        times = benchmark(
            chosen,
            args.modes,
            batch_size=args.batch_size,
            replicas=args.replicas,
            steps=args.steps,
            repetitions=args.repetitions,
            device=device,
            progress=lambda: bar.advance(task),
            num_layers=args.num_layers,
        )
    first = {t.mode: t for t in times if t.estimator == times[0].estimator}
    rows = [
        (
            t.estimator,
            t.mode if t.models == 1 else f"{t.models} {t.mode}",
            f"{t.bare:.2f}",
            f"{t.bare / first[t.mode].bare:.2f}",
            f"{t.flops / first[t.mode].flops:.2f}",
            f"{t.bare / t.floor:.1f}",
            f"{t.fit:.2f}",
            f"{t.fit_ratio:.2f}",
            f"{1e3 / t.fit:.0f}",
            f"{t.as_dict()['examples_per_second']:.0f}",
            f"{t.memory:.0f}",
        )
        for t in times
    ]
    columns = ["", "mode", "ms", "to first", "products", "to floor", "fit ms", "to bare", "steps/s", "images/s", "MiB"]
    where = f"{args.threads} thread(s)" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print_table(f"A step at batch {args.batch_size}, {args.num_layers} layer(s) of 200, {where}", columns, rows)
    found = {(t.estimator, t.mode): t.bare for t in times}
    ours, plain = found.get(("RELAX", "compiled")), found.get(("RELAX(coupled=False)", "eager"))
    if ours is not None and plain is not None:
        print(f"compiled, coupled RELAX is {plain / ours:.1f} times as fast as eager RELAX with independent noise")
    if args.plot is not None:
        print(f"wrote {plot_times(times, args.plot)}")
    if args.json is not None:
        write_json(args.json, {"times": [t.as_dict() for t in times]})
    return 0


def _long(name: str, device: torch.device, args: Namespace) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task(f"{args.long} steps", total=args.long // 1000)
        pace = long_run(
            name,
            args.long,
            batch_size=args.batch_size,
            device=device,
            progress=lambda: bar.advance(task),
            num_layers=args.num_layers,
        )
    rows = [
        (
            clock,
            f"{own[0]:.2f}",
            f"{own[-1]:.2f}",
            f"{own[-1] / own[0]:.2f}",
            f"{min(own):.2f}",
            f"{median(own):.2f}",
            f"{max(own):.2f}",
        )
        for clock, own in (("wall", pace.wall), ("CPU", pace.cpu))
    ]
    columns = ["ms a step", "first 1000", "last 1000", "ratio", "least", "median", "most"]
    print_table(f"{name}, compiled, {len(pace.wall)} thousand steps, {args.threads} thread(s)", columns, rows)
    if args.json is not None:
        write_json(args.json, pace.as_dict())
    return 0


def _spatial(device: torch.device, args: Namespace) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=len(SPATIAL) * (args.repetitions + 1))
        found = spatial_speed(
            batch_size=args.batch_size,
            steps=args.steps,
            repetitions=args.repetitions,
            device=device,
            progress=lambda: bar.advance(task),
        )
    rows = [(own.way, f"{own.images_per_second:.1f}", "" if own.to_plain is None else f"{own.to_plain:.2f}") for own in found]
    title = f"configs/model/spatial.yaml with Gumbel straight-through, batch {args.batch_size}, {args.threads} thread(s)"
    print_table(title, ["", "images/s", "to the plain loop"], rows)
    if args.json is not None:
        write_json(args.json, [own._asdict() for own in found])
    return 0


def _retrieval(args: Namespace) -> int:
    found = search_speed(args.retrieval)
    rows = [(own.way, f"{own.queries_per_second:.1f}") for own in found]
    print_table(f"100 nearest of {args.retrieval} codes of 64 bits, one thread", ["", "queries/s"], rows)
    if args.json is not None:
        write_json(args.json, [own._asdict() for own in found])
    return 0


def _peers(chosen: Sequence[str], device: torch.device, args: Namespace) -> int:
    if device.type != "cpu":
        raise InputError(f"--peers is measured on the CPU, got --device {args.device}")
    if args.num_layers != 1:
        raise InputError(f"--peers are of one layer, got --num_layers {args.num_layers}")
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=len(chosen) * (args.repetitions + 1))
        times = against_peers(
            chosen,
            batch_size=args.batch_size,
            steps=args.steps,
            repetitions=args.repetitions,
            progress=lambda: bar.advance(task),
        )
    rows = [
        (t.estimator, t.mode, t.peer, f"{t.cpu:.2f}", f"{t.peer_cpu:.2f}", f"{t.ratio:.2f}", f"{t.wall:.2f}", f"{t.peer_wall:.2f}")
        for t in times
    ]
    columns = ["", "ours", "peer", "CPU ms", "peer's", "ratio", "wall ms", "peer's"]
    print_table(f"A step at batch {args.batch_size} against the same one written plainly, {args.threads} thread(s)", columns, rows)
    if all(t.peer != "JAX" for t in times):
        print("JAX is not installed (pip install 'discrete-vae[jax]'): its rows are left out")
    if args.json is not None:
        write_json(args.json, [t._asdict() for t in times])
    return 0


def _processes(name: str, device: torch.device, args: Namespace) -> int:
    if device.type != "cpu":
        raise InputError(f"--processes are timed on the CPU, got --device {args.device}")
    for flag, value in {"--num_layers": args.num_layers, "--threads": args.threads}.items():
        if value != 1:
            raise InputError(f"--processes are of one layer, with one thread in each, got {flag} {value}: leave it out")
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=2 * len(args.processes))
        times = process_speed(
            name,
            args.processes,
            batch_size=args.batch_size,
            models=args.replicas,
            steps=args.steps,
            progress=lambda: bar.advance(task),
        )
    rows = []
    for shared, own in itertools.groupby(times, lambda time: time.shared):
        measured = list(own)
        guesses = [projected(measured, number * measured[-1].processes) for number in (2, 4)] if len(measured) > 1 else []
        kinds = ["measured"] * len(measured) + ["projected"] * len(guesses)
        rows += [
            (shared, str(t.processes), kind, f"{t.milliseconds:.2f}", f"{t.images_per_second:.0f}", f"{t.speedup:.2f}")
            for t, kind in zip([*measured, *guesses], kinds, strict=True)
        ]
    columns = ["shared", "processes", "", "ms an update", "images/s", "speed-up"]
    title = f"{name}, compiled, batch {args.batch_size} in each process, or {args.replicas} models; one thread in each"
    print_table(title, columns, rows)
    print("projected: a core for each process, and averaging in a ring; not measured")
    if args.json is not None:
        write_json(args.json, [own._asdict() for own in times])
    return 0


def _growth(chosen: Sequence[str], device: torch.device, args: Namespace) -> int:
    with Progress(transient=True) as bar:
        task = bar.add_task("timing", total=len(chosen) * sum(len(values) for values in GROWTH.values()))
        times = growth(chosen, steps=args.steps, device=device, progress=lambda: bar.advance(task))
    for quantity, curves in times.items():
        rows = [(name, *(f"{points[v]:.2f}" if v in points else "" for v in GROWTH[quantity])) for name, points in curves.items()]
        print_table(f"ms a compiled step, by {quantity}", ["", *map(str, GROWTH[quantity])], rows)
    if args.plot is not None:
        print(f"wrote {plot_growth(times, args.plot)}")
    if args.json is not None:
        write_json(args.json, times)
    return 0
