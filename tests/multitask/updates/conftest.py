"""The updates of examples/plugins, which are registered for the tests of this folder alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multitask.plugins import load_plugin


@pytest.fixture(scope="module")
def example_updates(root: Path, remember_parts: Callable[[], Callable[[], None]]) -> Iterator[list[str]]:
    """The names of CAGrad and DWA, registered from their files."""
    forget = remember_parts()
    names = ["cagrad", "dwa"]
    for name in names:
        load_plugin(root / "examples" / "plugins" / f"{name}.py")
    yield names
    forget()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Any], None]:
    """A function of a registry, a name and an entry, which is forgotten after the test."""

    def register(registry: Any, name: str, entry: Any) -> None:
        monkeypatch.setitem(registry._entries, name, entry)

    return register
