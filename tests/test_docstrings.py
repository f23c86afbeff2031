"""Whatever has a public name says what it is; a method that overrides another may leave that to it."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import dvae


def undocumented(module: ModuleType) -> Iterator[str]:
    """Names of a module, its functions, its classes and their methods without a docstring of their own or inherited."""
    if not module.__doc__:
        yield module.__name__
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            if not value.__doc__:
                yield f"{module.__name__}.{name}"
            yield from (f"{module.__name__}.{name}.{method}" for method in _undocumented_methods(value))
        elif inspect.isfunction(value) and not value.__doc__:
            yield f"{module.__name__}.{name}"


def _undocumented_methods(cls: type) -> Iterator[str]:
    for name, value in vars(cls).items():
        is_method = inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))
        told = any(getattr(vars(base).get(name), "__doc__", None) for base in cls.__mro__)
        if is_method and not name.startswith("_") and not told:
            yield name


def test_everything_public_is_documented():
    names = [module.name for module in pkgutil.walk_packages(dvae.__path__, "dvae.") if not module.name.endswith("__main__")]
    missing = {name for module in names for name in undocumented(importlib.import_module(module))}
    assert not missing


MADE_UP = """
class Documented:
    'A class.'

    def method(self):
        'Says what it does.'


class Override(Documented):
    'Says nothing new.'

    def method(self): ...

    def other(self): ...


def silent(): ...
"""


def test_what_has_no_word_is_found():
    module = ModuleType("made_up")
    exec(MADE_UP, vars(module))
    assert set(undocumented(module)) == {"made_up", "made_up.Override.other", "made_up.silent"}
