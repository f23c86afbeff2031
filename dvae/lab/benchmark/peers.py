"""The step against the same one written for the purpose, in eager PyTorch and in JAX, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
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

_PEERS: dict[str, tuple[str, Callable[..., Any]]] = {"PyTorch": ("eager", PlainTorch), "JAX": ("compiled", PlainJax)}


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
    ``lax.scan``. The rows of JAX are left out where it is not installed.

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
    peers = {peer: made for peer, made in _PEERS.items() if peer != "JAX" or find_spec("jax") is not None}
    runs = {name: _runs(name, batch_size, peers) for name in estimators}
    turns: dict[str, list[dict[str, _Turn]]] = {name: [] for name in estimators}
    # As in a fit, and as in a program that does not import Lightning.
    check = lightning.drop_cuda_check()
    for repetition in range(repetitions + 1):
        for name, ways in runs.items():
            length = BLOCK if repetition == 0 else max(1, steps // BLOCK) * BLOCK
            turn = {way: _timed(run, length) for way, run in ways.items()}
            if repetition > 0:  # the first one compiles and warms up
                turns[name].append(turn)
            if progress is not None:
                progress()
    lightning.restore_cuda_check(check)
    return [_row(name, mode, peer, batch_size, turns[name]) for name in estimators for peer, (mode, _) in peers.items()]


class _Turn(NamedTuple):
    cpu: float
    wall: float


def _runs(name: str, batch_size: int, peers: dict[str, tuple[str, Callable[..., Any]]]) -> dict[str, Callable[[int], Any]]:
    data, device = BinarizedMNIST(batch_size=batch_size), torch.device("cpu")
    modes = [mode for mode, _ in peers.values()]
    subjects = {mode: Subject(name, mode, data, 1, device, {}) for mode in modes}
    model = next(iter(subjects.values())).models[0]
    x = data.split("train").float()
    ways: dict[str, Callable[[int], Any]] = {mode: subject.run for mode, subject in subjects.items()}
    for subject in subjects.values():
        subject.run(WARM_UP)
    return ways | {peer: make(model, ALGORITHMS[name], x, batch_size).run for peer, (_, make) in peers.items()}


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
