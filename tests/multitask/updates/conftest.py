"""The updates of examples/plugins, which are registered for the tests of this folder alone."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multitask.plugins import REGISTRIES, load_plugin


@pytest.fixture(scope="module")
def example_updates() -> Iterator[list[str]]:
    """The names of CAGrad, DWA, FAMO and uncertainty weighting, registered from their files."""
    before = {what: copy.copy(vars(registry)) for what, registry in REGISTRIES.items()}
    before = {what: {key: copy.copy(value) for key, value in state.items()} for what, state in before.items()}
    names = ["cagrad", "dwa", "famo", "uncertainty"]
    for name in names:
        load_plugin(Path(__file__).parents[3] / "examples" / "plugins" / f"{name}.py")
    yield names
    for what, registry in REGISTRIES.items():
        vars(registry).update(before[what])


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Any], None]:
    """A function of a registry, a name and an entry, which is forgotten after the test."""

    def register(registry: Any, name: str, entry: Any) -> None:
        monkeypatch.setitem(registry._entries, name, entry)

    return register
