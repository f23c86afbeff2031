"""Functions of tensors: modules as such, the one place where parameters are replaced for a call, and derivatives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Caller", "caller", "frozen", "named_parameters", "pull_back", "sharing", "value_and_gradients"]

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
    module: nn.Module,
    function: Callable[..., Any] | None = None,
    parameters: Callable[[], Iterable[tuple[str, Tensor]]] | None = None,
) -> Callable[..., Any]:
    """``function(module, ...)`` as a function of the rest that no gradient of the module's parameters goes through.

    Arguments:
        module: whose parameters are held fixed, as they are when it is called first.
        function: by default the module's own call.
        parameters: gives their names and values, where it is not all of them; tied ones under each of their names.
    """
    called = type(module).__call__ if function is None else function
    kept: list[_Place] | None = None

    def constants() -> dict[str, Tensor]:
        named = named_parameters(module) if parameters is None else parameters()
        return {name: tensor.detach() for name, tensor in named}

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal kept
        if _is_transformed():  # what is made within a transform is of no use after it
            return functional_call(_Call(module), _once(module, constants()), (called, *args), kwargs, tie_weights=False)
        # When it is called: half of the estimators never do so, and looking through a module takes a while.
        kept = [_Place.of(module, *named) for named in constants().items()] if kept is None else kept
        # What functional_call does, in less time: in an eager step of a small model that counts.
        before = [own[name] for own, name, _ in kept]
        try:
            for own, name, constant in kept:
                own[name] = constant
            return called(module, *args, **kwargs)
        finally:
            for (own, name, _), parameter in zip(kept, before, strict=True):
                own[name] = parameter

    return call


class _Place(NamedTuple):
    """Where a module keeps a parameter, and a constant to put there."""

    own: dict[str, Any]
    name: str
    constant: Tensor

    @classmethod
    def of(cls, module: nn.Module, name: str, constant: Tensor) -> _Place:
        part, _, key = name.rpartition(".")
        return cls(vars(module.get_submodule(part))["_parameters"], key, constant)


def _is_transformed() -> bool:
    """Whether what runs is seen by a compiler or a transform of ``torch.func``."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def named_parameters(module: nn.Module, prefix: str = "", without: Collection[str] = ()) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's parameters under every name, in the order of its own method of this name, without its bookkeeping.

    Arguments:
        module: whose.
        prefix: of the names.
        without: names of children to pass by.
    """
    for name, parameter in vars(module)["_parameters"].items():
        if parameter is not None:
            yield prefix + name, parameter
    for name, child in vars(module)["_modules"].items():
        if child is not None and name not in without:
            yield from named_parameters(child, f"{prefix}{name}.")


def _members(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, under every name."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _once(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a :class:`_Call` of the module is to have replaced: each place once, whatever names lead to it.

    ``functional_call`` swaps name by name. Of a part that is registered under two names (``self.last = self.layers[-1]``) it would
    swap each tensor twice, and put back what it had put in itself.
    """
    places: dict[tuple[int, str], tuple[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, key = name.rpartition(".")
        places.setdefault((id(module.get_submodule(part)), key), (f"module.{name}", tensor))
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


def pull_back(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """f's value, and what takes a derivative with respect to it to the derivative with respect to ``at``.

    All of it is differentiable in what f depends on, and zero where f does not depend on ``at``.
    """
    # The same derivative either way, to the last bit: a transform of torch.func, which alone goes together with others and with
    # compiling, does the bookkeeping of every operation twice.
    if _is_transformed():
        value, transposed, *_ = torch.func.vjp(f, at)
        return value, lambda derivative: transposed(derivative)[0]
    kept = torch.is_grad_enabled()
    with torch.enable_grad():
        at = at if at.requires_grad else at.detach().requires_grad_()
        value = f(at)

    def back(derivative: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(at)
        return torch.autograd.grad(value, at, derivative, retain_graph=True, create_graph=kept, materialize_grads=True)[0]

    return value if kept else value.detach(), back


def value_and_gradients(
    module: nn.Module, function: Callable[..., tuple[Tensor, Any]], parameters: Mapping[str, Tensor], *at: Tensor
) -> tuple[Tensor, Any, dict[str, Tensor], Sequence[Tensor]]:
    """A function's value and what it gives besides, and the gradients of the value's sum; none of them with a graph.

    Arguments:
        module, function: ``function(module, *at)`` gives a value and whatever else is wanted.
        parameters: of the module, by name, to differentiate with respect to.
        at: tensors to differentiate with respect to, likewise.
    """
    if _is_transformed():  # see pull_back
        known = {name: parameter.detach() for name, parameter in parameters.items()}
        places = [one.detach() for one in at]
        value, transposed, *others = torch.func.vjp(caller(module, function), known, *places, has_aux=True)
        by_name, *by_place = transposed(torch.ones_like(value))
        return value, others[0], by_name, by_place
    with torch.enable_grad():
        at = tuple(one.detach().requires_grad_() for one in at)
        value, others = function(module, *at)
        slopes = torch.autograd.grad(value, [*parameters.values(), *at], torch.ones_like(value), materialize_grads=True)
    return value.detach(), others, dict(zip(parameters, slopes, strict=False)), slopes[len(parameters) :]
