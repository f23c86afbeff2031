"""The step against the same one written for the purpose, in eager PyTorch and in JAX, in turns."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

import torch

from dvae.data import BinarizedMNIST
from dvae.errors import InputError
from dvae.lab.benchmark.algorithms import ALGORITHMS, BLOCK
from dvae.lab.benchmark.plain_jax import PlainJax
from dvae.lab.benchmark.plain_torch import PlainTorch
from dvae.lab.benchmark.subject import WARM_UP, Subject
from dvae.training import lightning

__all__ = ["PeerTime", "against_peers"]

_PEERS = {"PyTorch": "eager", "JAX": "compiled"}
"""The mode of ours that each is set against."""


class PeerTime(NamedTuple):
    """One step of ours and of a peer, in milliseconds: medians over repetitions.

    estimator, mode: of ours.
    peer: "PyTorch", eager, or "JAX", compiled.
    cpu, peer_cpu: time of the CPU, which what else the machine does falls on least.
    wall, peer_wall: by the clock on the wall.
    ratio: of ours to the peer's CPU time, the median over turns.
    """

    estimator: str
    mode: str
    peer: str
    batch_size: int
    cpu: float
    peer_cpu: float
    wall: float
    peer_wall: float
    ratio: float


def against_peers(
    estimators: Sequence[str] = tuple(ALGORITHMS),
    *,
    batch_size: int = 24,
    steps: int = 300,
    repetitions: int = 5,
    progress: Callable[[], None] | None = None,
) -> list[PeerTime]:
    """Time the linear model's step on the bundled data on the CPU: ours eager and compiled, plain eager PyTorch, and JAX.

    All do the same on the same data from the same parameters: batches, noise, loss, gradients and Adam; JAX fifty steps in one
    ``lax.scan``. Each has a process of its own, and they take turns. The rows of JAX are left out where it is not installed.

    Arguments:
        estimators: names out of :data:`ALGORITHMS`.
        batch_size: examples in a batch.
        steps: timed steps in each repetition, rounded down to whole fifties.
        repetitions: how often each is timed; compiling is not counted.
        progress: called after each of ``len(estimators) * (repetitions + 1)`` turns.

    Raises:
        InputError: an estimator is not written plainly, or a number is less than 1.
    """
    if unknown := [name for name in estimators if name not in ALGORITHMS]:
        raise InputError(f"estimators with peers must be out of {', '.join(ALGORITHMS)}; got {', '.join(unknown)}")
    for name, value in {"steps": steps, "repetitions": repetitions}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    peers = {peer: mode for peer, mode in _PEERS.items() if peer != "JAX" or find_spec("jax") is not None}
    rows = []
    for name in estimators:
        ways = [*peers.values(), *peers]
        with ExitStack() as stack:
            workers = {way: stack.enter_context(_Worker(name, way, batch_size)) for way in ways}
            turns: list[dict[str, _Turn]] = []
            for repetition in range(repetitions + 1):
                length = BLOCK if repetition == 0 else max(1, steps // BLOCK) * BLOCK
                turn = {way: worker.run(length) for way, worker in workers.items()}
                if repetition > 0:  # the first one warms up
                    turns.append(turn)
                if progress is not None:
                    progress()
        rows += [_row(name, mode, peer, batch_size, turns) for peer, mode in peers.items()]
    return rows


class _Turn(NamedTuple):
    cpu: float
    wall: float


class _Worker:
    """One way to do the step, in a process of its own, as in a program that does nothing else."""

    def __init__(self, *of: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._asked, self._its = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._its, torch.get_num_threads(), *of), daemon=True)

    def __enter__(self) -> _Worker:
        self._process.start()
        self._its.close()  # so that the end of the process is the end of the pipe
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._asked.send(None)
        self._process.join(30)
        self._process.terminate()

    def run(self, steps: int) -> _Turn:
        """So many steps, in milliseconds each."""
        try:
            self._asked.send(steps)
            return self._asked.recv()
        except (EOFError, OSError):
            raise InputError("a process that times a step has stopped: why, it says above") from None


def _serve(asked: Connection, threads: int, name: str, way: str, batch_size: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    lightning.drop_cuda_check()  # as in a fit, and as in a program that does not import Lightning
    data, device = BinarizedMNIST(batch_size=batch_size), torch.device("cpu")
    subject = Subject(name, "eager" if way == "PyTorch" else "compiled" if way == "JAX" else way, data, 1, device, {})
    run: Callable[[int], Any] = subject.run
    if way in _PEERS:
        make = PlainTorch if way == "PyTorch" else PlainJax
        run = make(subject.models[0], ALGORITHMS[name], data.split("train").float(), batch_size).run
    else:
        subject.run(WARM_UP)
    while (steps := asked.recv()) is not None:
        asked.send(_timed(run, steps))


def _timed(run: Callable[[int], Any], steps: int) -> _Turn:
    cpu, wall = time.process_time(), time.perf_counter()
    run(steps)
    return _Turn(1e3 * (time.process_time() - cpu) / steps, 1e3 * (time.perf_counter() - wall) / steps)


def _row(name: str, mode: str, peer: str, batch_size: int, turns: Sequence[dict[str, _Turn]]) -> PeerTime:
    ours, theirs = [turn[mode] for turn in turns], [turn[peer] for turn in turns]
    ratio = median(a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True))
    cpu, peer_cpu = (median(turn.cpu for turn in own) for own in (ours, theirs))
    wall, peer_wall = (median(turn.wall for turn in own) for own in (ours, theirs))
    return PeerTime(name, mode, peer, batch_size, cpu, peer_cpu, wall, peer_wall, ratio)
