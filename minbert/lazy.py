"""Load the names of a package when they are first used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: dict[str, Any], home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` for a package (PEP 562).

    :param package: the package's ``globals()``.
    :param home: the module of the package that defines each name.
    :return: both functions; ``__getattr__`` raises AttributeError for other names, as Python's own does.
    """

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        package[name] = getattr(import_module(f"{package['__name__']}.{home[name]}"), name)
        return package[name]

    return load, lambda: sorted({*package, *home})
