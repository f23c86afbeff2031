"""Modules as functions of their tensors: the one place where parameters are replaced for a call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Caller", "caller", "frozen", "sharing"]

M = TypeVar("M", bound=nn.Module)


class _Call(nn.Module):
    """A function of a module as a ``forward``, for that is what ``functional_call`` calls."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.module, *args, **kwargs)


Caller = Callable[..., Any]
"""``(tensors, *args)`` to a function's value."""


def caller(module: nn.Module, function: Callable[..., Any]) -> Caller:
    """``call(tensors, *args)``: ``function(module, *args)`` while these tensors stand in for the module's own of their names.

    It is made outside of what is compiled: a module made in it must not be changed in it.
    """
    shell = _Call(module)

    def call(tensors: Mapping[str, Tensor], *args: Any) -> Any:
        return functional_call(shell, {f"module.{name}": tensor for name, tensor in tensors.items()}, (function, *args))

    return call


def frozen(
    module: nn.Module, function: Callable[..., Any] | None = None, parameters: Iterable[tuple[str, Tensor]] | None = None
) -> Callable[..., Any]:
    """``function(module, ...)`` as a function of the rest that no gradient of the module's parameters goes through.

    Arguments:
        module: whose parameters are held fixed.
        function: by default the module's own call.
        parameters: their names and values, where it is not all of them; tied ones under each of their names.
    """
    named = module.named_parameters(remove_duplicate=False) if parameters is None else parameters
    constants = {f"module.{name}": tensor.detach() for name, tensor in named}
    called = type(module).__call__ if function is None else function

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(_Call(module), constants, (called, *args), kwargs, tie_weights=False)

    return call


def sharing(module: M, known: dict[int, nn.Module] | None = None) -> M:
    """A copy of a module and of those in it whose parameters and buffers are the module's own.

    An attribute or a buffer that is assigned to the copy leaves the module as it is; what is changed in place is changed in both.

    Arguments:
        module: to copy.
        known: copies that there are already, by the identity of what they are of.
    """
    known = {} if known is None else known
    if id(module) not in known:
        known[id(module)] = twin = copy.copy(module)
        own = vars(twin)
        for name in ("_parameters", "_buffers"):
            own[name] = dict(own[name])
        own["_modules"] = {
            name: None if child is None else sharing(child, known) for name, child in vars(module)["_modules"].items()
        }
    return known[id(module)]  # type: ignore[return-value]
