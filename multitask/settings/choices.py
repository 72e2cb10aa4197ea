"""The names that settings choose from, each list in one place and known without importing torch."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from multitask.errors import ConfigError
from multitask.settings.checks import shown

__all__ = ["HEADS", "OPTIMIZERS", "POOLINGS", "SCHEDULES", "UPDATES", "Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """What a setting chooses from, by name; iterating gives the names and imports nothing.

    :param what: what an entry is called in messages.
    :param homes: built-in entries that need torch, as "module:attribute"; each is imported on first use.
    """

    def __init__(self, what: str, **homes: str) -> None:
        self.what, self._homes = what, homes
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters what it decorates under ``name``.

        :raises ConfigError: for a name that is taken.
        """

        def enter(entry: T) -> T:
            if name in self:
                raise ConfigError(f"the name of a new {self.what} must not be taken, got {shown(name)}")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            module, _, attribute = self._homes[name].partition(":")
            self._entries[name] = getattr(import_module(module), attribute)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._homes or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter({**self._homes, **self._entries})

    def __len__(self) -> int:
        return len({**self._homes, **self._entries})


UPDATES: Registry[Any] = Registry(
    "update",
    separate="multitask.updates.separate:SeparateUpdate",
    combined="multitask.updates.combined:CombinedUpdate",
    pcgrad="multitask.updates.pcgrad:pcgrad",
)
OPTIMIZERS: Registry[Any] = Registry(
    "optimizer",
    **{
        "adamw": "multitask.updates.optimizers:adamw",
        "torch-adamw": "multitask.updates.optimizers:torch_adamw",
        "sgd": "multitask.updates.optimizers:sgd",
    },
)
SCHEDULES: Registry[Any] = Registry(
    "schedule",
    constant="minbert.optim:constant_schedule",
    linear="minbert.optim:linear_schedule",
    cosine="minbert.optim:cosine_schedule",
)
POOLINGS = ("attention", "pooler", "cls", "mean", "max")
HEADS = ("linear", "cosine")
