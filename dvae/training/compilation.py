"""Compiling a step, and replaying it on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

__all__ = ["FAILURES", "Compiled", "NotCompilable", "compiled", "warn_not_compiled"]


FAILURES = (TorchDynamoException, FailOnRecompileLimitHit)
"""What a call of a compiled function raises where it cannot be compiled, or not once more."""


_OPTIONS: dict[str, Any] = {
    # Its patterns make of a product and a sum one call, which starts from a copy of the sum's other part: of RELAX's penalty on
    # large weights, too.
    "pattern_matcher": False,
    # What comes in always has one layout.
    "size_asserts": False,
    # RODEO's hidden units at a neighbour are of five tensors; of more than so many, they would go to memory and back for each use.
    "realize_reads_threshold": 5,
}


def compiled(function: Callable[..., Any]) -> Compiled:
    """The function compiled whole, apart from all others made of the same code."""
    return Compiled(function)


class Compiled:
    """A function compiled whole; what it is compiled to belongs to it alone.

    What ``torch.compile`` makes of a function belongs to the function's code, and only so much may: the ninth model of one process
    would not be compiled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._own = _twin(function, function.__code__.replace())
        # Code for one shape is faster than code for any; a partial graph would be slow silently.
        self._guarded = torch.compile(self._own, dynamic=False, fullgraph=True, options=_OPTIONS)

    def __call__(self, *args: Any) -> Any:
        return self._guarded(*args)

    def unguarded(self) -> Callable[..., Any]:
        """What the call before this one ran, without the look whether it still fits: the caller has to know that it does.

        The look and what surrounds it take a sixth of REINFORCE's step.
        """
        # PyTorch's own debugging aid; a version that has it no more looks every time.
        entries_of = getattr(torch._dynamo.eval_frame, "_debug_get_cache_entry_list", None)
        entries = [] if entries_of is None else entries_of(self._own.__code__)
        # The first is the one that was used last.
        return _twin(self._own, entries[0].code) if entries else self


def _twin(function: Callable[..., Any], code: CodeType) -> FunctionType:
    """A function with other code and the same surroundings."""
    assert isinstance(function, FunctionType)
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


class Replayed:
    """A step on a GPU, captured as a CUDA graph after some calls and replayed from then on: one launch in place of each kernel's.

    A graph reads and writes where it did when it was captured. So each batch is copied to one place for its shape, from the first
    call on; everything else that a step is given must be the same tensors in every call, changed in place.
    """

    _WARM_UP = 3  # calls of each shape that compile, choose kernels and fill caches, none of which a capture may do

    def __init__(self, step: Callable[..., None]) -> None:
        self._step = step
        self._calls: Counter[torch.Size] = Counter()
        self._places: dict[torch.Size, Tensor] = {}
        self._graphs: dict[torch.Size, torch.cuda.CUDAGraph] = {}
        self._fails = False

    def __call__(self, *kept_and_batch: Any) -> None:
        *kept, x = kept_and_batch
        if x.shape not in self._places:
            self._places[x.shape] = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        place = self._places[x.shape].copy_(x)
        self._calls[x.shape] += 1
        if x.shape not in self._graphs and self._calls[x.shape] > self._WARM_UP and not self._fails:
            self._capture(*kept, place)
        if x.shape in self._graphs:
            self._graphs[x.shape].replay()
        else:
            self._step(*kept, place)

    def _capture(self, *kept_and_place: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as a data loader's, may use the GPU meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step(*kept_and_place)
        except (RuntimeError, *FAILURES) as error:  # nothing has run yet, so that the step can still be done
            rank_zero_warn(f"the step cannot be captured as a CUDA graph and is launched as it is: {str(error).splitlines()[0]}")
            self._fails = True
            return
        self._graphs[kept_and_place[-1].shape] = graph


class NotCompilable(RuntimeError):
    """A step cannot be compiled; the message says why."""


def warn_not_compiled(error: Exception) -> None:
    """Say why the step is not compiled."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    rank_zero_warn(f"the step cannot be compiled and runs as it is: {reason}")
