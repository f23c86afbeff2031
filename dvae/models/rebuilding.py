"""Rebuilding a module from what a file holds: a class's path, its arguments and tensors, none of which need be honest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook

from dvae.config import class_paths, import_class, require_trust
from dvae.errors import InputError, reason_of
from dvae.models.building import size_of_example

__all__ = ["MORE_VALUES", "num_stored", "rebuilt"]

M = TypeVar("M", bound=nn.Module)

# How much more than its file a model may be while it is built: parts that are made and replaced, buffers that no file holds.
_FACTOR, _MORE_TENSORS, MORE_VALUES = 4, 1000, 25_000_000


def rebuilt(
    base: type[M],
    what: str,
    class_path: Any,
    arguments: Mapping[Any, Any],
    tensors: Mapping[str, Any],
    *,
    trust: bool = False,
    parts: int = 1,
    prepare: Callable[[M], Any] = lambda model: None,
) -> M:
    """The module that a file describes, in evaluation mode.

    Arguments:
        base: what it is to be.
        what: the file, as a sentence begins.
        class_path: of the module's class.
        arguments: of its constructor.
        tensors: its state.
        trust: import classes from outside ``dvae`` that the file names; importing runs their code.
        parts: of how many modules, made one by one, each tensor of the file is stacked.
        prepare: called with the module before its tensors are loaded.

    Raises:
        InputError: a class is not trusted or cannot be imported, or arguments and tensors fit neither it nor each other.
    """
    if not isinstance(class_path, str) or not all(isinstance(name, str) for name in arguments):
        raise InputError(f"{what} does not name its model's class and arguments")
    named = [class_path, *class_paths(arguments)]
    if "." in str(arguments.get("latent", "")):
        named.append(str(arguments["latent"]))
    require_trust(what, named, trust)
    kind = what.split()[0]
    cls = import_class(class_path, base, f"the {kind}'s model")
    try:
        _require_pixels(tensors, arguments)
        with _no_larger_than(tensors, parts):
            model = cls(**arguments)
        prepare(model)
        model.load_state_dict(tensors)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except Exception as error:  # whatever a damaged value leads to
        raise InputError(f"{what} does not fit the model it names: {reason_of(error, 200)}") from error
    for name, tensor in tensors.items():
        if tensor.is_complex() or not tensor.isfinite().all():
            raise InputError(f"{what}: {name} must hold finite real numbers, but does not")
    return model.eval()


@contextmanager
def _no_larger_than(tensors: Mapping[str, Any], parts: int = 1) -> Iterator[None]:
    """Build nothing much larger than a file's tensors: its arguments can name any size, and building takes time and memory.

    PyTorch tells of every tensor that a module gets, before it is filled with its initial values.
    """
    found = [tensor for tensor in tensors.values() if isinstance(tensor, Tensor)]
    most = _FACTOR * len(found) * parts + _MORE_TENSORS
    most_values = _FACTOR * sum(num_stored(tensor) for tensor in found) + MORE_VALUES
    num_tensors = num_values = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal num_tensors, num_values
        if tensor is not None:
            num_tensors, num_values = num_tensors + 1, num_values + tensor.numel()
        if num_tensors > most or num_values > most_values:
            raise InputError(
                f"its arguments name a model far larger than the {len(found)} tensors of {sum(t.numel() for t in found)} values "
                f"that the file holds (met with {name} of {type(module).__name__})"
            )

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _require_pixels(tensors: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    # An encoder of its own is tried on an image, which is made outside of modules.
    given, mean = [arguments.get(name) for name in ("num_pixels", "image_shape")], tensors.get("mean")
    if given != [None, None] and isinstance(mean, Tensor):
        num_pixels, _ = size_of_example(*given)
        if num_pixels != mean.numel():
            raise InputError(f"its arguments are for {num_pixels} pixels, but its tensors for {mean.numel()}")


def num_stored(tensor: Tensor) -> int:
    """Values that lie in memory: of a tensor that repeats itself fewer than it has."""
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size())
