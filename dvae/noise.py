r"""Noise as a pure function of a seed and counters: the same whenever it is asked for, eagerly, compiled and on every device.

Uniform numbers are the sequence of SplitMix64 (Steele, Lea & Flood 2014), read at any place:

.. math:: \text{number } k = \text{mix}(k \cdot \text{9E3779B97F4A7C15}_{16} \bmod 2^{64})

An iteration of a run reads on from a place that (seed, process, iteration) are mixed to. What a step draws so depends on nothing
that was drawn before it, a resumed run goes on exactly, and a GPU draws what a CPU draws.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "mixed_seed",
    "noise_seed",
    "noise_stream",
    "place",
    "seeded_generator",
    "uniform",
    "uniform_from",
    "uniform_of",
]

_MASK = (1 << 64) - 1
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def noise_seed(seed: int, *counters: int) -> int:
    """A 63-bit seed for one (process, iteration, ...) of a run."""
    return _folded(seed, counters) >> 1


def seeded_generator(generator: torch.Generator, seed: int, *counters: int) -> torch.Generator:
    """``generator``, set to the noise of the given counters: what is drawn does not depend on what was drawn before it."""
    return generator.manual_seed(noise_seed(seed, *counters))


def mixed_seed(*numbers: int) -> int:
    """A 64-bit seed for a data set's orders and draws; neighbouring numbers give unrelated ones."""
    # SeedSequence pads with zeros, so that (1,) and (1, 0) would be one seed: the length goes first.
    return int(np.random.SeedSequence([len(numbers), *numbers]).generate_state(1, np.uint64)[0])


def noise_stream(seed: int, *counters: int) -> int:
    """All noise of one (process, ...) of a run, as a 64-bit number that :func:`place` takes."""
    return _signed(_folded(seed, counters))


def place(stream: Tensor | int, iteration: Tensor) -> Tensor:
    """Where in the sequence an iteration of a stream starts, int64 of the arguments' shape; :func:`noise_stream` of integers."""
    return _mixed((iteration + 1) * _signed(_GAMMA) + stream)


def uniform(start: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers from a place of the sequence on, uniform on [0, 1): 53 bits of each in float64, the first 24 of them in float32.

    Arguments:
        start: [*], int64, on the device that the numbers are wanted on; numbers are drawn from each.
        shape: of what is drawn from one place.
        dtype: float32 or float64.
    """
    # The place is added before the multiplication: as index arithmetic of its own torch.compile would overflow it.
    places = start[..., None] + torch.arange(math.prod(shape), device=start.device)
    bits = _mixed(places * _signed(_GAMMA)).reshape((*start.shape, *shape))
    digits = _digits(dtype)
    return _shifted(bits, 64 - digits).to(dtype) * 2.0**-digits


def uniform_from(
    generator: torch.Generator | None, shape: Sequence[int], device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A generator's numbers, uniform on [0, 1), drawn where it is and moved: of one on the CPU, every device gets the same.

    Arguments:
        generator: None for the device's own.
        shape: of the numbers.
        device: where they are wanted.
        dtype: float32 or float64.
    """
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=dtype, device=source).to(device)


def uniform_of(stream: int, iteration: int, shapes: Sequence[Sequence[int]], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """What :func:`uniform` gives from an iteration's place in a stream on, one tensor after the other, on the CPU.

    By NumPy, which takes a sixth of the time of PyTorch's operations; and of a small model for some iterations at a time, because
    code that is run once a step has left the processor's caches meanwhile.
    """
    ends = list(itertools.accumulate(map(math.prod, shapes)))
    several = max(1, min(8, (1 << 16) // max(1, ends[-1])))
    row = iteration % several
    numbers = _rows(stream, iteration - row, several, ends[-1], dtype)[row].copy()
    starts = [0, *ends[:-1]]
    return [torch.from_numpy(numbers[a:b].reshape(shape)) for a, b, shape in zip(starts, ends, shapes, strict=True)]


@functools.lru_cache(maxsize=2)
def _rows(stream: int, first: int, several: int, count: int, dtype: torch.dtype) -> Any:
    """The numbers of ``several`` iterations, [several, count]."""
    starts = [noise_stream(stream, first + row) * _GAMMA & _MASK for row in range(several)]
    state = _multiples(count) + np.array(starts, dtype=np.uint64)[:, None]
    shifted = np.empty_like(state)
    for number, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        np.right_shift(state, np.uint64(number), out=shifted)
        np.bitwise_xor(state, shifted, out=state)
        np.multiply(state, np.uint64(factor), out=state)
    digits = _digits(dtype)
    np.right_shift(state, np.uint64(64 - digits), out=state)
    numbers = state.astype(np.float64 if dtype == torch.float64 else np.float32)
    return np.multiply(numbers, 2.0**-digits, out=numbers)


@functools.lru_cache(maxsize=8)
def _multiples(count: int) -> Any:
    """0, 1, ... times the constant that the places are apart, uint64 [count]."""
    return np.arange(count, dtype=np.uint64) * np.uint64(_GAMMA)


def _digits(dtype: torch.dtype) -> int:
    return 53 if dtype == torch.float64 else 24


def _mixed(state: Tensor) -> Tensor:
    """SplitMix64's output at a state, in the two's complement of int64."""
    state = (state ^ _shifted(state, 30)) * _signed(_FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(_SECOND)
    return state ^ _shifted(state, 31)


def _shifted(bits: Tensor, number: int) -> Tensor:
    # PyTorch's shift repeats the sign.
    return (bits >> number) & (_MASK >> number)


def _folded(seed: int, counters: Sequence[int]) -> int:
    """:func:`place` once for each counter, in Python's integers."""
    state = seed & _MASK
    for counter in counters:
        state = (state + (counter + 1) * _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
