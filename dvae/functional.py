"""Modules as functions of their tensors: the one place where parameters are replaced for a call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
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

    A parameter or buffer that several names share is replaced under all of them, whichever of them is given.

    It is made outside of what is compiled: a module made in it must not be changed in it.
    """
    shell = _Call(module)

    def call(tensors: Mapping[str, Tensor], *args: Any) -> Any:
        # By the tensors that they replace, so that those which are one under several names stay one.
        own = dict(_members(module))
        new = {own[name]: tensor for name, tensor in tensors.items()}
        replaced = {name: new[tensor] for name, tensor in own.items() if tensor in new}
        return functional_call(shell, _once(module, replaced), (function, *args), tie_weights=False)

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
    constants = _once(module, {name: tensor.detach() for name, tensor in named})
    called = type(module).__call__ if function is None else function

    def call(*args: Any, **kwargs: Any) -> Any:
        return functional_call(_Call(module), constants, (called, *args), kwargs, tie_weights=False)

    return call


def _members(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, under every name."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _once(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a :class:`_Call` of the module is to have replaced: each place once, whatever names lead to it.

    ``functional_call`` swaps name by name. Of a part that is registered under two names (``self.last = self.layers[-1]``) it would
    swap each tensor twice, and put back what it had put in itself.
    """
    parts = dict(module.named_modules(remove_duplicate=False))
    places: dict[tuple[int, str], tuple[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, key = name.rpartition(".")
        places.setdefault((id(parts[part]), key), (f"module.{name}", tensor))
    return dict(places.values())


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
